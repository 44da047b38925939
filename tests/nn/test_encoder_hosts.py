"""The drop-ins of whole encoder layers, against their hosts."""

import copy
import pickle

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hosts import randomised, vision, vitdet  # noqa: E402
from test_relative_position_hosts import first  # noqa: E402

CHANNELS = 64


def sam(package="sam", window=0, **options):
    return vision(package, "Layer", window, **{"attn_implementation": "sdpa", "mlp_dim": 192} | options)


def segment_anything(window=0, bias=True):
    from hosts import image_encoder

    size = (10, 10) if window == 0 else (window, window)
    return randomised(
        image_encoder().Block(
            CHANNELS, num_heads=4, qkv_bias=bias, use_rel_pos=True, window_size=window, input_size=size
        )
    )


class VitDet(torch.nn.Module):
    """Called like the others."""

    def __init__(self, kind="Layer", window=0):
        super().__init__()
        self.layer = vitdet(kind, window)

    def forward(self, x):
        return self.layer(x.permute(0, 3, 1, 2))[0]


class SegGpt(torch.nn.Module):
    """Called like the others."""

    def __init__(self, ensemble=False):
        super().__init__()
        import transformers
        from transformers.models.seggpt import modeling_seggpt

        config = transformers.SegGptConfig(
            image_size=(128, 64), patch_size=16, hidden_size=CHANNELS, num_attention_heads=2, mlp_dim=128
        )
        self.layer = randomised(modeling_seggpt.SegGptLayer(config, 0.1))
        self.ensemble = ensemble

    def forward(self, x):
        x = x[:, : x.shape[1] // 2 * 2]  # two pictures, one above the other
        return self.layer(x, ensemble_cond=1 if self.ensemble else 2, feature_ensemble=self.ensemble)[0]


HOSTS = {
    "Sam": sam,
    "Sam, windows": lambda: sam(window=7),
    "Sam without bias": lambda: sam(window=4, qkv_bias=False),
    "Sam eager": lambda: sam(attn_implementation="eager"),
    "SamHQ": lambda: sam("sam_hq"),
    "SamHQ, windows": lambda: sam("sam_hq", 6),
    "GotOcr2, windows": lambda: sam("got_ocr2", 7),
    "PPFormulaNet, windows": lambda: sam("pp_formulanet", 4),
    "SLANeXt": lambda: sam("slanext"),
    "DeepseekOcr2, windows": lambda: sam("deepseek_ocr2", 7),
    "UnlimitedOcr": lambda: sam("unlimited_ocr"),
    "VitDet": VitDet,
    "VitDet, windows and a residual block": lambda: VitDet("Residual", 7),
    "segment_anything": segment_anything,
    "segment_anything, windows": lambda: segment_anything(4),
    "segment_anything without bias": lambda: segment_anything(4, bias=False),
    "SegGpt": SegGpt,
    "SegGpt, ensemble": lambda: SegGpt(ensemble=True),
}


@pytest.fixture(params=HOSTS.values(), ids=HOSTS)
def host(request):
    return request.param().eval()


def tokens(*size, images=3, **options):
    return torch.randn(images, *size, CHANNELS, generator=torch.Generator().manual_seed(1), **options)


def layer_of(host):
    return getattr(host, "layer", host)


@pytest.mark.parametrize("size", [(10, 10), (7, 7), (8, 4), (2, 6), (13, 9)], ids=str)
def test_drop_in(host, size):
    x = tokens(*size)
    with torch.no_grad():
        want = host(x)
        fp.accelerate(host)
        assert type(layer_of(host)).__module__.startswith("fastprompt.nn")
        torch.testing.assert_close(host(x), want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(host(x.transpose(0, 1).contiguous().transpose(0, 1)), want, rtol=1e-5, atol=1e-5)
        with fp.disabled():
            assert torch.equal(host(x), want)
    assert host.state_dict().keys() == fp.restore(copy.deepcopy(host)).state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(pickle.loads(pickle.dumps(host))(x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["Sam, windows", "segment_anything", "SegGpt", "VitDet"])
def test_the_layer_itself_is_called(name, monkeypatch):
    """Not the host's forward with our attention in it."""
    host = fp.accelerate(HOSTS[name]())
    refuse = lambda *_: pytest.fail("the host's module was called")  # noqa: E731
    refuse.__module__ = torch.nn.Linear.__module__  # else the host's path would be taken
    monkeypatch.setattr(torch.nn.Linear, "forward", refuse)
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", refuse)
    with torch.no_grad():
        host.eval()(tokens(8, 4))


@pytest.mark.filterwarnings("ignore:fastprompt")
def test_gradient(host):
    x = tokens(8, 4, requires_grad=True)
    leaves = [x, *host.parameters()]
    want = torch.autograd.grad(host(x).square().sum(), leaves)
    fp.accelerate(host)
    for got, w in zip(torch.autograd.grad(host(x).square().sum(), leaves), want, strict=True):
        assert float((got - w).abs().max()) <= 3e-5 * float(w.abs().max())


@torch.no_grad()
def test_parameters_may_change(host):
    x = tokens(8, 4)
    fp.accelerate(host)(x)
    for p in host.parameters():
        p.mul_(1.25)
    with fp.disabled():
        want = host(x)
    torch.testing.assert_close(host(x), want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_compile():
    host, x = sam(window=7), tokens(10, 10)
    want = host(x)
    compiled = torch.compile(fp.accelerate(host), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_autocast():
    """The host's dtype, and no worse than the host."""
    host, x = sam(window=7), tokens(10, 10)
    exact = host(x)
    with torch.autocast("cpu", torch.bfloat16):
        want = host(x)
        got = fp.accelerate(host)(x)
    assert got.dtype == want.dtype
    assert float((got - exact).abs().max()) <= float((want - exact).abs().max())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:fastprompt")
def test_hooks_are_called():
    host, x, seen = fp.accelerate(sam()), tokens(5, 5), []
    for module in (host.mlp.lin1, host.layer_norm1, host.attn):
        handle = module.register_forward_hook(lambda module, *_: seen.append(module))
        host(x)
        assert seen.pop() is module
        handle.remove()
    host(x)
    assert not seen


@torch.no_grad()
def test_half_precision_is_the_hosts():
    host, x = sam().bfloat16(), tokens(5, 5).bfloat16()
    want = host(x)
    with pytest.warns(UserWarning, match="float32 only"):
        got = fp.accelerate(host)(x)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


class Adapted(torch.nn.Linear):
    pass


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layer: setattr(layer.mlp, "lin1", Adapted(64, 192)), "mlp.lin1 is a "),
        (lambda layer: setattr(layer.attn, "qkv", Adapted(64, 192)), "attn.qkv is a "),
        (lambda layer: setattr(layer.mlp, "act", torch.nn.ReLU()), "the activation must be GELU, got ReLU"),
        (lambda layer: setattr(layer.mlp, "act", torch.nn.GELU("tanh")), "the activation must be GELU"),
        (lambda layer: setattr(layer, "layer_norm2", torch.nn.Identity()), "norm2 must be LayerNorm, got Identity"),
    ],
)
@torch.no_grad()
@pytest.mark.filterwarnings("ignore:fastprompt. SamVisionSdpaAttention")  # whose part it is, too
def test_layers_of_another_kind_stay(change, reason):
    before, after = sam(), fp.accelerate(sam())
    change(before), change(after)
    torch.manual_seed(0)
    for host in (before, after):
        host.eval()
        for module in host.modules():
            if isinstance(module, Adapted):
                torch.nn.init.constant_(module.weight, 0.01), torch.nn.init.zeros_(module.bias)
    assert reason in fp.report(fp.accelerate(before)).skipped[""]
    x = tokens(5, 5)
    with pytest.warns(UserWarning, match=reason[:20]):
        got = after(x)
    fp.restore(before)
    torch.testing.assert_close(first(got), first(before(x)), rtol=1e-5, atol=1e-5)


def test_odd_sizes_stay():
    host = sam(mlp_dim=200)
    assert "multiples of 16" in fp.report(fp.accelerate(host)).skipped[""]


def test_the_table_is_complete():
    """Every class of an image encoder of transformers is tested here, or in the file of its attention."""
    from test_relative_position_hosts import HOSTS as ATTENTIONS

    from fastprompt._drop_ins import full_name
    from fastprompt.models.hosts import DROP_INS

    hosts = [layer_of(HOSTS[n]()) for n in HOSTS if "segment_anything" not in n]
    hosts += [ATTENTIONS[n]() for n in ATTENTIONS if "segment_anything" not in n]
    ends = ("Attention", "Layer")
    wanted = {name for name in DROP_INS if name.startswith("transformers.") and name.endswith(ends)}
    wanted = {name for name in wanted if not name.endswith("MemoryAttention")}
    assert {full_name(type(host)) for host in hosts} == wanted
