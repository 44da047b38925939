"""``disabled`` and the backend "reference" in models that torch compiles or exports, and in other threads."""

import threading

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hosts import PROMPTS, embedding, no_grad, sam  # noqa: E402, F401

from fastprompt import _switches  # noqa: E402


class Model(torch.nn.Module):
    """One argument, one result."""

    def __init__(self):
        super().__init__()
        self.sam = fp.accelerate(sam(size=8))

    def forward(self, image):
        found = self.sam(image_embeddings=image, **PROMPTS["point"], return_dict=False)
        return found[1], found[0]


@pytest.fixture(scope="module")
def model():
    return Model().eval()


@pytest.fixture
def image():
    return embedding(size=8)


BLOCKS = pytest.mark.parametrize("block", [fp.disabled, lambda: fp.backend("reference")], ids=["disabled", "reference"])


def ours(graph):
    return any("fastprompt" in str(node.target) for node in graph.nodes)


@pytest.fixture
def compiled(model):
    """The model, and of each graph that is called whether it has nodes of ours."""
    called = []

    def backend(graph, inputs):
        return lambda *given: (called.append(ours(graph.graph)), graph(*given))[1]

    torch._dynamo.reset()
    yield torch.compile(model, backend=backend, fullgraph=True), called
    torch._dynamo.reset()


@BLOCKS
def test_a_compiled_model_follows(compiled, model, image, block):
    call, called = compiled
    before = call(image)
    with block():
        inside = call(image)
        want = model(image)
    after = call(image)
    assert called == [True, False, True]
    for x, y, z, host in zip(before, inside, after, want, strict=True):
        torch.testing.assert_close(y, host, rtol=0, atol=1e-5)
        torch.testing.assert_close(x, host, rtol=0, atol=1e-4)
        assert torch.equal(x, z)


def test_the_innermost_backend_counts(compiled, image):
    call, called = compiled
    with fp.backend("reference"):
        with fp.backend("reference"), fp.backend("cpu"):
            call(image)
        call(image)
        with pytest.raises(ZeroDivisionError), fp.disabled():
            raise ZeroDivisionError
    call(image)
    assert called == [True, False, True]


def test_another_thread(compiled, model, image):
    """In eager mode a thread has its own switch; a compiled model follows any."""
    call, called = compiled
    call(image)
    seen = []

    def other():
        seen.append(_switches.is_disabled())
        call(image)

    with fp.disabled():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [False]
    call(image)
    assert called == [True, False, True]
    assert not _switches.OFF.on


@BLOCKS
@pytest.mark.filterwarnings("ignore:While compiling")  # transformers has side effects
@pytest.mark.parametrize("strict", [False, True])
def test_torch_export(model, image, block, strict):
    with block():
        assert not ours(torch.export.export(model, (image,), strict=strict).graph)
    assert ours(torch.export.export(model, (image,), strict=strict).graph)


def test_compare_a_compiled_model(model, image):
    torch._dynamo.reset()
    result = fp.compare(
        torch.compile(model.sam, backend="eager"), {"image_embeddings": image, **PROMPTS["point"]}, rounds=1
    )
    masks = next(x for x in result.outputs if x.name == "pred_masks")
    assert 0 < masks.relative < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
def test_ones_own_export_to_onnx(model, image, tmp_path, dynamo):
    """Of the accelerated model as it is: the host's nodes, for any runtime."""
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model(image)  # which is known, and not baked in
    torch.onnx.export(model, (image,), tmp_path / "m.onnx", input_names=["x"], dynamo=dynamo, opset_version=18)
    other = embedding(size=8, seed=5)
    got = ort.InferenceSession(tmp_path / "m.onnx").run(None, {"x": other.numpy()})
    for x, y in zip(got, model(other), strict=True):
        torch.testing.assert_close(torch.from_numpy(x), y, rtol=0, atol=1e-4)


def test_the_environment_counts(fresh_python):
    code = "import fastprompt as fp\nfrom fastprompt._runtime import REFERENCE\nprint(REFERENCE.on)\n"
    code += "with fp.backend('auto'): print(REFERENCE.on)\nprint(REFERENCE.on)"
    assert fresh_python(code, FASTPROMPT_BACKEND="reference").split() == ["True", "False", "True"]
    assert fresh_python(code, FASTPROMPT_BACKEND="auto").split() == ["False", "False", "False"]
