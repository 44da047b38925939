"""The drop-ins of the image encoders' attention, against their hosts."""

import copy
import pickle

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hosts import randomised, under_another_name, vision, vitdet  # noqa: E402


def sam(kind="Attention", package="sam", window=0, **options):
    return vision(package, kind, window, **options)


def seggpt():
    import transformers
    from transformers.models.seggpt import modeling_seggpt

    config = transformers.SegGptConfig(image_size=(128, 64), patch_size=16, hidden_size=96, num_attention_heads=3)
    return randomised(modeling_seggpt.SegGptAttention(config))


def segment_anything(bias=True):
    from hosts import image_encoder

    return randomised(image_encoder().Attention(64, num_heads=4, qkv_bias=bias, use_rel_pos=True, input_size=(10, 10)))


HOSTS = {
    "SamVisionAttention": sam,
    "SamVisionSdpaAttention": lambda: sam("SdpaAttention"),
    "SamHQVisionAttention": lambda: sam("Attention", "sam_hq"),
    "SamHQVisionSdpaAttention": lambda: sam("SdpaAttention", "sam_hq"),
    "GotOcr2VisionAttention": lambda: sam("Attention", "got_ocr2"),
    "PPFormulaNetVisionAttention": lambda: sam("Attention", "pp_formulanet"),
    "SLANeXtVisionAttention": lambda: sam("Attention", "slanext"),
    "DeepseekOcr2SamVisionAttention": lambda: sam("Attention", "deepseek_ocr2"),
    "DeepseekOcr2SamVisionSdpaAttention": lambda: sam("SdpaAttention", "deepseek_ocr2"),
    "UnlimitedOcrSamVisionAttention": lambda: sam("Attention", "unlimited_ocr"),
    "UnlimitedOcrSamVisionSdpaAttention": lambda: sam("SdpaAttention", "unlimited_ocr"),
    "VitDetAttention": lambda: vitdet("Attention"),
    "without bias": lambda: sam(qkv_bias=False),
    "window": lambda: sam(window=7),
    "SegGptAttention": seggpt,
    "segment_anything": segment_anything,
}


@pytest.fixture(params=HOSTS.values(), ids=HOSTS)
def host(request):
    return request.param()


def first(found):
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("size", [(10, 10), (7, 7), (8, 4), (1, 5), (13, 9)], ids=str)
def test_drop_in(host, size):
    """Of the size that it was made for, and of others: then the host interpolates its tables."""
    x = torch.randn(3, *size, host.qkv.in_features, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = first(host(x))
        fp.accelerate(host)
        assert list(fp.report(host).replaced) == [""]
        for _ in range(2):
            got = first(host(x))
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_tables_follow_the_parameter(host):
    x = torch.randn(1, 9, 6, host.qkv.in_features)
    fp.accelerate(host)
    for change in (
        lambda: None,
        lambda: host.rel_pos_h.mul_(2),
        lambda: setattr(host, "rel_pos_w", torch.nn.Parameter(host.rel_pos_w * 3)),
    ):
        with torch.no_grad():
            change()
            got = first(host(x))
            with fp.disabled():
                wanted = first(host(x))
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    for clone in (copy.deepcopy(host), pickle.loads(pickle.dumps(host))):
        assert not clone.__dict__.get("_fastprompt_tables")
        torch.testing.assert_close(first(clone(x)), wanted, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(first(host(x)), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first(host(x)), wanted, rtol=1e-5, atol=1e-5)
    fp.restore(host)
    assert "_fastprompt_tables" not in host.__dict__


@pytest.mark.parametrize("size", [(10, 10), (9, 6)], ids=str)
def test_drop_in_gradient(host, size):
    x = torch.randn(2, *size, host.qkv.in_features, requires_grad=True)
    leaves = [x, *host.parameters()]
    wanted = torch.autograd.grad(first(host(x)).square().sum(), leaves)
    fp.accelerate(host)
    for got, want in zip(torch.autograd.grad(first(host(x)).square().sum(), leaves), wanted, strict=True):
        assert float((got - want).abs().max()) <= 3e-5 * float(want.abs().max())


def test_drop_in_compile(host):
    torch._dynamo.reset()  # which compiles one line of code for eight classes at most
    x = torch.randn(2, 10, 10, host.qkv.in_features)
    with torch.no_grad():
        wanted = first(host(x))
        compiled = torch.compile(fp.accelerate(host), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(first(compiled(x)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:fastprompt")
@torch.no_grad()
def test_weights_come_from_the_host():
    import transformers

    x = torch.randn(1, 8, 4, 96)
    assert fp.accelerate(seggpt())(x, output_attentions=True)[1].shape == (1, 3, 32, 32)
    assert fp.accelerate(seggpt())(x)[1] is None
    config = transformers.SamVisionConfig(
        image_size=64, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_dim=32,
        window_size=3, global_attn_indexes=[1], attn_implementation="eager",
    )  # fmt: skip
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    model = randomised(SamVisionEncoder(config))
    picture = torch.randn(1, 3, 64, 64)
    wanted = model(picture, output_attentions=True)
    fp.accelerate(model)
    assert len(fp.report(model).replaced) == 4  # two layers and their attention
    got = model(picture, output_attentions=True)
    for a, b in zip(got.attentions, wanted.attentions, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(model(picture).last_hidden_state, wanted.last_hidden_state, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:fastprompt")
@torch.no_grad()
def test_calls_of_the_host():
    """Half precision, and dropout in training: its own numbers."""
    x = torch.randn(1, 10, 10, 64)
    host = sam().to(torch.bfloat16)
    wanted = first(host(x.bfloat16()))
    assert torch.equal(first(fp.accelerate(host)(x.bfloat16())), wanted)
    host = sam().train()
    host.dropout = 0.5
    torch.manual_seed(0)
    wanted = first(host(x))
    torch.manual_seed(0)
    assert torch.equal(first(fp.accelerate(host)(x)), wanted)


def test_no_relative_position_no_drop_in():
    import transformers
    from transformers.models.sam import modeling_sam

    config = transformers.SamVisionConfig(image_size=64, hidden_size=32, num_attention_heads=2, use_rel_pos=False)
    module = fp.accelerate(modeling_sam.SamVisionAttention(config, 0))
    assert fp.report(module).skipped == {"": "it has no relative position"}


@pytest.mark.parametrize("package", ["mobile_sam", "segment_anything_hq"])
def test_the_same_code_under_another_name(package):
    x = torch.randn(2, 6, 7, 64)
    with under_another_name(package) as made, torch.no_grad():
        host = randomised(made.Attention(64, num_heads=4, use_rel_pos=True, input_size=(6, 7)))
        wanted = host(x)
        assert fp.report(fp.accelerate(host)).replaced == {"": f"{package}.modeling.image_encoder.Attention"}
        torch.testing.assert_close(host(x), wanted, rtol=1e-5, atol=1e-5)
