"""Mask decoders on a GPU against their hosts on the CPU, and the attention functions against the CPU's kernels."""

import copy
import warnings

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
from decoders import BUILDERS, SIZE, host  # noqa: E402
from hosts import no_grad  # noqa: E402, F401

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}  # of the largest value


@pytest.fixture(autouse=True)
def float32_convolutions(monkeypatch):
    """Those of hosts are torch's, TF32 unless it is told otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def moved(x, dtype=None):
    if isinstance(x, (list, tuple)):
        return [moved(y, dtype) for y in x]
    if not torch.is_tensor(x):
        return x
    return x.to("cuda", dtype if x.is_floating_point() else None)


def close(got, want, dtype=torch.float32):
    for x, y in zip(got, want, strict=True):
        x, y = x.detach().double().cpu(), y.detach().double()
        assert x.shape == y.shape
        assert (x - y).abs().max() <= TOLERANCE[dtype] * max(1.0, y.abs().max())


def accelerated(decoder, dtype=torch.float32):
    """A copy on the GPU; from now on the host's path is an error."""
    return fp.accelerate(copy.deepcopy(fp.restore(decoder)).to("cuda", dtype))


def check(name, dtype=torch.float32, **options):
    decoder, arguments = fp.restore(host(name).decoder), host(name).arguments(**options)
    want = copy.deepcopy(decoder).double()(**{k: doubled(x) for k, x in arguments.items()})
    ours = accelerated(decoder, dtype)
    given = {k: moved(x, dtype) for k, x in arguments.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # an image that is new, and one that is known
            close(ours(**given), want, dtype)


def doubled(x):
    if isinstance(x, (list, tuple)):
        return [doubled(y) for y in x]
    return x.double() if torch.is_tensor(x) and x.is_floating_point() else x


@pytest.mark.parametrize("kind", ["point", "10 points", "mask", "nothing"])
@pytest.mark.parametrize("name", BUILDERS)
def test_decoders(name, kind):
    check(name, kind=kind)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 16])
def test_half_precision(dtype, count):
    check("Sam", dtype, count=count)


@pytest.mark.parametrize("kind", ["point", "mask"])
def test_many_prompts_and_images(kind):
    check("Sam", kind=kind, count=64)
    check("Sam", kind=kind, count=3, images=2)


def test_a_whole_model():
    """SamModel with a given image, at the size of SAM's decoder: 64 x 64 image tokens."""
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32}
    torch.manual_seed(0)
    model = transformers.SamModel(transformers.SamConfig(vision_config=vision)).eval()
    given = {"image_embeddings": torch.randn(1, 256, 64, 64), "input_points": torch.rand(1, 2, 1, 2) * 1024}
    want = model(**given)
    got = fp.accelerate(copy.deepcopy(model).cuda())(**{k: x.cuda() for k, x in given.items()})
    close([got.pred_masks, got.iou_scores], [want.pred_masks, want.iou_scores])


@pytest.fixture
def click():
    """The accelerated decoder of SAM, the arguments of a click on a known image."""
    ours, given = accelerated(host("Sam").decoder), {k: moved(x) for k, x in host("Sam").arguments().items()}
    for _ in range(2):
        ours(**given)
    return ours, given


def test_a_click_does_not_wait(click):
    ours, given = click
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours(**given)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_at_most_12_launches(click):
    ours, given = click
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        ours(**given)
        torch.cuda.synchronize()
    names = [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    assert 0 < len(names) <= 12, names


def test_a_cuda_graph(click):
    ours, given = click
    eager = ours(**given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = ours(**given)
    graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(found, eager, strict=True))
    given["sparse_prompt_embeddings"].mul_(-0.5)
    want = [x.clone() for x in ours(**given)]
    graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(found, want, strict=True)), "another click, the same bits"


def test_two_streams(click):
    ours, given = click
    want, streams, found = ours(**given), [torch.cuda.Stream() for _ in range(2)], []
    torch.cuda.synchronize()
    for stream in streams * 3:
        with torch.cuda.stream(stream):
            found.append(ours(**given))
    torch.cuda.synchronize()
    assert all(torch.equal(x, y) for got in found for x, y in zip(got, want, strict=True))


def test_an_image_that_changes(click):
    ours, given = click
    given["image_embeddings"].mul_(0.5)
    got = ours(**given)
    with fp.disabled():
        want = ours(**given)
    close(got, [x.cpu() for x in want])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(click, dtype):
    ours, given = click
    want = ours(**given)
    with torch.autocast("cuda", dtype):
        got = ours(**given)
    assert all(x.dtype == dtype for x in got)
    close(got, [x.cpu() for x in want], dtype)


def test_gradients_take_the_path_of_the_host(click):
    ours, given = click
    with torch.enable_grad():
        masks, _ = ours(**given)
    assert masks.requires_grad


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("form", ["absorbed", "projected"])
def test_the_functions(dtype, form):
    torch.manual_seed(0)
    prompt, image, position = (
        torch.randn(3, 7, 64),
        torch.randn(1, 64, SIZE, SIZE + 2),
        torch.randn(1, 64, SIZE, SIZE + 2),
    )
    shapes = [(32, 64), (32,)] * 3 + [(64, 32), (64,)]
    weights = fp.AttentionWeights(*(torch.randn(*s) / s[-1] ** 0.5 for s in shapes))
    lengths, hidden = torch.tensor([7, 1, 3]), torch.randn(3, 7, SIZE, SIZE + 2)
    norm = torch.randn(64), torch.randn(64)
    turn = lambda x: x.to("cuda", dtype)  # noqa: E731
    on_gpu = fp.AttentionWeights(*map(turn, weights))
    options = {"heads": 2, "form": form}
    want = fp.prompt_to_image_attention(
        prompt, image, weights, **options, image_position=position, bias=hidden, lengths=lengths
    )
    got = fp.prompt_to_image_attention(
        turn(prompt), turn(image), on_gpu, **options, image_position=turn(position), bias=turn(hidden),
        lengths=lengths.cuda(),
    )  # fmt: skip
    assert got.dtype == dtype
    close([got], [want], dtype)
    want = fp.image_to_prompt_attention(image, prompt, weights, **options, lengths=lengths, norm=(*norm, 1e-6))
    got = fp.image_to_prompt_attention(
        turn(image), turn(prompt), on_gpu, **options, lengths=lengths.cuda(), norm=(*map(turn, norm), 1e-6)
    )
    assert got.dtype == dtype
    close([got], [want], dtype)
    with fp.backend("reference"):
        close([fp.image_to_prompt_attention(turn(image), turn(prompt), on_gpu, **options, lengths=lengths.cuda(),
                                            norm=(*map(turn, norm), 1e-6))], [want], dtype)  # fmt: skip
