"""Image encoders on a GPU: the way that drop-ins take there, and on a device (``-m gpu``) against their hosts."""

import contextlib

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from gpu_way import TOLERANCE, device, needs_gpu  # noqa: E402, F401
from hosts import randomised  # noqa: E402


def sam(**options):
    """Two layers with windows, one without, ragged at the far sides."""
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    config = SamVisionConfig(
        image_size=80, patch_size=8, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, mlp_dim=96,
        window_size=4, global_attn_indexes=[1], output_channels=32, **options,
    )  # fmt: skip
    return randomised(SamVisionEncoder(config))


def segment_anything():
    from hosts import image_encoder

    return randomised(
        image_encoder().ImageEncoderViT(
            img_size=80, patch_size=8, embed_dim=64, depth=2, num_heads=2, out_chans=32, use_rel_pos=True, window_size=4,
            global_attn_indexes=(1,),
        )
    )  # fmt: skip


def seggpt():
    from transformers import SegGptConfig
    from transformers.models.seggpt.modeling_seggpt import SegGptLayer

    config = SegGptConfig(image_size=(128, 64), patch_size=16, hidden_size=96, num_attention_heads=3)
    return randomised(SegGptLayer(config, 0.0))


HOSTS = {
    "sam": (sam, (2, 3, 80, 80)),
    "sam, eager": (lambda: sam(attn_implementation="eager"), (1, 3, 80, 80)),
    "segment_anything": (segment_anything, (1, 3, 80, 80)),
    "seggpt": (seggpt, (2, 8, 4, 96)),
}


def result(model, x):
    found = model(x, ensemble_cond=2) if "SegGpt" in type(model).__name__ else model(x)
    return found if isinstance(found, torch.Tensor) else found[0]


@pytest.fixture(params=HOSTS)
def host(request, device):
    make, shape = HOSTS[request.param]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return make().eval().to(device), x.to(device)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("autocast", [False, True], ids=["itself", "autocast"])
@torch.no_grad()
def test_encoder(host, dtype, autocast, recwarn):
    """Nothing refuses, whatever the type."""
    if autocast and dtype == torch.float32:
        pytest.skip("autocast lowers")
    model, x = host
    if not autocast:
        model, x = model.to(dtype), x.to(dtype)
    with torch.autocast(x.device.type, dtype) if autocast else contextlib.nullcontext():
        wanted = result(model, x)
        fp.accelerate(model)
        got = result(model, x)
    assert got.dtype == wanted.dtype
    assert float((got - wanted).abs().max()) <= TOLERANCE[dtype] * float(wanted.abs().max())
    assert not [w for w in recwarn if "host's path" in str(w.message)]


def test_gradient(host, recwarn):
    model, x = host
    leaves = [x.requires_grad_(), *(p for p in model.parameters())]
    gradients = lambda: torch.autograd.grad(result(model, x).square().sum(), leaves, allow_unused=True)  # noqa: E731
    wanted = gradients()
    fp.accelerate(model)
    for got, want in zip(gradients(), wanted, strict=True):
        assert (got is None) == (want is None)
        assert want is None or float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())
    assert not [w for w in recwarn if "host's path" in str(w.message)]


@pytest.mark.parametrize("where", [pytest.param("cuda", marks=needs_gpu)])
@torch.no_grad()
def test_pruned_and_compiled(where):
    model, x = sam().eval().to(where), torch.randn(1, 3, 80, 80, device=where)
    wanted = result(model, x)
    fp.accelerate(model)
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(result(compiled, x), wanted, rtol=1e-4, atol=1e-4)
    fp.restore(model)
    fp.accelerate(model, prune=fp.Prune(keep=1.0, at=1, score="norm"))
    torch.testing.assert_close(result(model, x), wanted, rtol=1e-4, atol=1e-4)
