"""Pruned models and the pruning kernels on a GPU; without one, that every tensor of a pruned model is on its device."""

import types

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch._subclasses import FakeTensorMode  # noqa: E402

import fastprompt as fp  # noqa: E402

HAS_GPU = torch.cuda.is_available()
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="there is no CUDA device")]


def vit():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    settings = {"img_size": 56, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 6}
    torch.manual_seed(0)
    return timm.models.vision_transformer.VisionTransformer(reg_tokens=2, **settings).eval()


def sam():
    pytest.importorskip("transformers", reason="transformers is not installed")
    from pruned_hosts import ENCODERS

    return ENCODERS["transformers eager"]()


# SAM's from the first block on: a block before that is a drop-in of its own, which is not what is tested.
MODELS = {
    "timm": (vit, fp.Prune(keep=0.5, at=1, score="cls"), (2, 3, 56, 56)),
    "timm, prompt": (vit, fp.Prune(keep=0.5, at=1, score="prompt"), (2, 3, 56, 56)),
    "timm, own": (vit, fp.Prune(keep=0.5, at=1, score=lambda x, where: x[..., 0] + where[:, 0]), (2, 3, 56, 56)),
    "sam": (sam, fp.Prune(keep=0.5, at=0), (2, 3, 208, 208)),
}
POINTS = [[[30.0, 40.0]], [[10.0, 12.0]]]


def output(model, x):
    with torch.no_grad(), fp.prompt(points=POINTS):
        out = model(x)
    return out if isinstance(out, torch.Tensor) else out[0]


@pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this torch knows no CUDA device, not even without numbers"
)
@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_on_the_device(monkeypatch, name):
    make, prune, shape = MODELS[name]
    model = fp.accelerate(make(), prune=prune)
    if name == "sam":  # which windows stay is what the host has to know
        from fastprompt.nn.parts import windows

        chosen = types.SimpleNamespace(tolist=lambda: [[0, 4, 7, *range(10, 20)], [1, *range(13, 25)]])
        monkeypatch.setattr(windows, "prune_tokens", lambda *a, **k: types.SimpleNamespace(indices=chosen))
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for table in (module._parameters, module._buffers):
                for key, x in table.items():
                    if x is not None:
                        made = torch.empty(x.shape, dtype=x.dtype, device="cuda")
                        table[key] = torch.nn.Parameter(made) if table is module._parameters else made
        assert output(model, torch.empty(shape, device="cuda")).is_cuda


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_gpu) for name in MODELS])
def test_pruned_models(name):
    make, prune, shape = MODELS[name]
    model = fp.accelerate(make(), prune=prune)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    want = output(model, x)
    torch.testing.assert_close(output(model.cuda(), x.cuda()).cpu(), want, rtol=0, atol=2e-4 * float(want.abs().max()))


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_triton_cases(run_cases, device):
    """The cases that the tests execute as PTX elsewhere."""
    pytest.importorskip("triton", reason="triton is not installed")
    for products in ("tf32x3", "ieee"):
        run_cases("triton_cases_pooling.py", FASTPROMPT_TEST_DEVICE=device, FASTPROMPT_TEST_PRODUCTS=products)


REAL = [(1, 4096, 768), (2, 1024, 384), (1, 8191, 64), (1, 16384, 32), (1, 20000, 16)]  # the last by the formula


@pytest.mark.parametrize("shape", [pytest.param(shape, marks=needs_gpu) for shape in REAL])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_real_sizes(shape, dtype):
    batch, count, _ = shape
    g = torch.Generator().manual_seed(0)
    tokens = (1000 * torch.randn(shape, generator=g)).to(dtype)
    scores = torch.randn(batch, count, generator=g).mul(100).round()  # ties
    always = torch.rand(batch, count, generator=g) < 0.01
    for options in ({"keep": 0.5}, {"count": 1000, "always_keep": always, "stride_mix": 0.3},
                    {"threshold": 50.0, "stride_mix": 0.1}):  # fmt: skip
        moved = {k: v.cuda() if k == "always_keep" else v for k, v in options.items()}
        want, back = fp.prune_tokens(tokens, scores, **options)
        got, restore = fp.prune_tokens(tokens.cuda(), scores.cuda(), **moved)
        assert torch.equal(restore.indices.cpu(), back.indices)
        assert torch.equal(got.cpu(), want)
        assert torch.equal(restore(-got).cpu(), back(-want))
        assert torch.equal(restore(got, 0).cpu(), back(want, 0))
    same = [fp.prune_tokens(tokens.cuda(), scores.cuda(), keep=0.3).tokens for _ in range(3)]
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])


@pytest.mark.parametrize("count", [pytest.param(n, marks=needs_gpu) for n in (197, 4096)])
def test_merging(count):
    x = torch.randn(2, count, 96, generator=torch.Generator().manual_seed(0))
    y, sizes, unmerge = fp.merge_tokens(x.cuda(), r=count // 3, protected=1)
    again = fp.merge_tokens(x.cuda(), r=count // 3, protected=1).tokens
    assert torch.equal(y, again)
    assert unmerge(y).shape == x.shape
    total = (y * sizes[..., None]).sum(1).cpu()  # nothing is lost, whoever was matched with whom
    torch.testing.assert_close(total, x.sum(1), rtol=0, atol=1e-3)
    assert sizes.sum(1).tolist() == [count, count]
