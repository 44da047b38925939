"""The mask head's products in bfloat16, by every engine; AMX in an emulator where the machine has none."""

import ctypes

import pytest

from fastprompt import _C

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from conftest import HAS_AMX  # noqa: E402
from hosts import no_grad  # noqa: E402, F401
from test_low_rank import decoder, run  # noqa: E402

pytestmark = pytest.mark.skipif(_C.best_isa() != "avx512", reason="bfloat16 products need AVX-512")


def inputs(channels=128, height=9, width=9):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return draw(2, 7, channels), draw(1, channels, height, width), draw(1, channels, height, width)


def test_precision_follows_torch(engine, precision, emulator):
    """Largest error of a mask logit in its standard deviations."""
    module, arguments = decoder(2, channels=128, heads=4), inputs()
    (tokens, full), _, (_, want) = run(module, *arguments)
    found = {}
    for name in ("highest", "high", "medium"):
        precision(name)
        (close, found[name]), _, _ = run(module, *arguments)
        assert float((close - tokens).abs().max()) < {"highest": 1e-12, "high": 1e-4, "medium": 3e-2}[name]
    error = {name: float((x - want).abs().max() / want.std()) for name, x in found.items()}
    assert torch.equal(found["highest"], full)
    assert 1e-4 < error["medium"] < 3e-2
    assert error["high"] < 1e-4
    three_pay = engine != "avx512_bf16"  # there one product in float32 takes less time than three in bfloat16
    assert torch.equal(found["high"], full) != three_pay
    if engine == "amx" and not HAS_AMX:
        assert ctypes.c_long.in_dll(emulator, "amx_executed").value > 0


def test_engines_agree(engine, precision):
    """With the plain one, up to the order of the sums."""
    module, arguments = decoder(2, channels=128, heads=4), inputs(height=5, width=13)
    for name, tolerance in (("medium", 5e-3), ("high", 5e-5)):  # a last bit of a sum decides how a number is rounded
        precision(name)
        got = run(module, *arguments)[0][1]
        _C.set_bf16("plain")
        want = run(module, *arguments)[0][1]
        _C.set_bf16(engine)
        if name == "medium" or engine != "avx512_bf16":
            assert float((got - want).abs().max() / want.std()) < tolerance


def test_a_mask_head_that_fits_no_block_is_computed_in_float32(engine, precision):
    module, arguments = decoder(2), inputs(channels=64)
    module.upscale_conv1 = torch.nn.ConvTranspose2d(64, 20, 2, 2)  # 80 rows, but no multiple of 32 to sum over
    module.upscale_layer_norm = type(module.upscale_layer_norm)(20, data_format="channels_first")
    module.upscale_conv2 = torch.nn.ConvTranspose2d(20, 10, 2, 2)
    precision("medium")
    (_, got), _, (_, want) = run(module, *arguments)
    assert float((got - want).abs().max() / want.std()) < 3e-2


def test_nan_stays_nan(engine, precision):
    module, (tokens, image, position) = decoder(2, channels=128, heads=4), inputs()
    image[0, 0, 0, 0] = float("nan")
    precision("medium")
    masks = run(module, tokens, image, position)[0][1]
    assert torch.isnan(masks[:, :, :4, :4]).all()


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="no bfloat16 engine 'abacus'"):
        _C.set_bf16("abacus")
