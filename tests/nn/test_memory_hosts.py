"""The drop-ins of memory attention, against their hosts in float64."""

import copy
import pickle
import warnings

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hosts import randomised  # noqa: E402

from fastprompt import _C  # noqa: E402
from fastprompt.nn.parts import host_path  # noqa: E402

SIDE, POINTERS = (8, 9), 8  # columns and rows of a frame


def transformers_host(name, layers=2, **options):
    package = {"Sam2Video": "sam2_video", "Sam3TrackerVideo": "sam3_tracker_video", "EdgeTamVideo": "edgetam_video"}
    module = pytest.importorskip(f"transformers.models.{package[name]}.modeling_{package[name]}")
    import transformers

    sizes = {"memory_attention_num_layers": layers, "memory_attention_rope_feat_sizes": list(SIDE)}
    if name == "EdgeTamVideo":
        sizes["memory_attention_rope_k_sizes"] = [4, 3]
    config = getattr(transformers, f"{name}Config")()
    for key, value in (sizes | options).items():
        setattr(config, key, value)
    config._attn_implementation = "eager"
    return randomised(getattr(module, f"{name}MemoryAttention")(config))


def sam2_host(layers=2, side=(8, 9), **options):
    memory = pytest.importorskip("sam2.modeling.memory_attention")
    from sam2.modeling.sam.transformer import RoPEAttention

    made = {"embedding_dim": 256, "num_heads": 1, "downsample_rate": 1, "dropout": 0.1, "feat_sizes": side}
    switches = {"pos_enc_at_attn": False, "pos_enc_at_cross_attn_keys": True, "pos_enc_at_cross_attn_queries": False}
    layer = memory.MemoryAttentionLayer(
        **{"activation": "relu", "d_model": 256, "dim_feedforward": 192, "dropout": 0.1} | switches | options,
        self_attention=RoPEAttention(**made),
        cross_attention=RoPEAttention(**made, rope_k_repeat=True, kv_in_dim=64),
    )
    return randomised(memory.MemoryAttention(256, True, layer, layers))


HOSTS = {
    "Sam2Video": lambda **o: transformers_host("Sam2Video", **o),
    "Sam3TrackerVideo": lambda **o: transformers_host("Sam3TrackerVideo", **o),
    "EdgeTamVideo": lambda **o: transformers_host("EdgeTamVideo", **o),
    "sam2": sam2_host,
}


def inputs(objects=1, frames=3, pointers=POINTERS, positions=True, seed=0, tokens=72, each=None):
    """``each``: tokens of a frame of the memory."""
    g = torch.Generator().manual_seed(seed)
    count = frames * (each or tokens) + pointers
    shapes = (tokens, objects, 256), (count, objects, 64), (tokens, objects, 256), (count, objects, 64)
    features, memory, where, where_in_memory = (torch.randn(s, generator=g) for s in shapes)
    return features, memory, where if positions else None, where_in_memory, pointers, frames


def run(module, given, dtype=None):
    features, memory, positions, memory_positions, pointers, frames = given
    tensors = [
        x if x is None or dtype is None else x.to(dtype) for x in (features, memory, positions, memory_positions)
    ]
    further = [frames] if "EdgeTam" in type(module).__name__ else []
    with torch.no_grad():
        return module(*tensors, pointers, *further)


def of(name, **options):
    """Arguments that fit the host: EdgeTAM's frames are 5 latents and 12 places."""
    return inputs(**options, **({"each": 17} if name == "EdgeTamVideo" else {}))


def wide(host):
    """The host in float64; sam2's tables are no buffers."""
    twin = copy.deepcopy(host).double()
    for module in twin.modules():
        if hasattr(module, "freqs_cis"):
            module.freqs_cis = module.freqs_cis.to(torch.complex128)
    return twin


@pytest.fixture(params=HOSTS)
def name(request):
    return request.param


@pytest.fixture
def no_host_path(monkeypatch):
    """An error where a call takes the host's path."""

    def refuse(text):
        raise AssertionError(text)

    monkeypatch.setattr(host_path, "say_once", refuse)


def error(module, host, given):
    got, plain, want = run(module, given), run(host, given), run(wide(host), given, torch.float64)
    assert got.shape == plain.shape
    assert got.dtype == plain.dtype
    return float((got - want).abs().max() / want.std())


CALLS = {
    "frames and pointers": {},
    "three objects": {"objects": 3, "frames": 2},
    "no pointers": {"pointers": 0, "frames": 4},
    "pointers alone": {"frames": 0, "objects": 2},
    "one frame": {"frames": 1},
    "many frames": {"frames": 13, "pointers": 3},
    "without positions of the frame": {"positions": False},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.usefixtures("no_host_path")
def test_the_host_s_numbers(name, call):
    if name == "sam2" and call == "without positions of the frame":
        pytest.skip("the host needs them")
    host, given = HOSTS[name](), of(name, **CALLS[call])
    module = fp.accelerate(copy.deepcopy(host))
    assert type(module) is not type(host)
    for _ in range(2):
        assert error(module, host, given) < 1e-5


@pytest.mark.usefixtures("isa", "no_host_path")
def test_instruction_sets(name):
    host = HOSTS[name]()
    assert error(fp.accelerate(copy.deepcopy(host)), host, of(name, frames=13)) < 1e-5


@pytest.mark.usefixtures("no_host_path")
def test_real_width():
    """7 frames of 32 x 32 and 64 pointers, the MLP of 2048, four layers."""
    host = transformers_host("Sam2Video", layers=4, memory_attention_rope_feat_sizes=[32, 32])
    given = inputs(frames=7, pointers=64, tokens=1024)
    assert error(fp.accelerate(copy.deepcopy(host)), host, given) < 1e-5


@pytest.mark.usefixtures("no_host_path")
def test_a_table_of_another_size():
    """Which the host makes anew, for a square."""
    host = sam2_host(side=(4, 4))
    assert error(fp.accelerate(copy.deepcopy(host)), host, inputs(tokens=81, frames=13)) < 1e-5


@pytest.mark.usefixtures("no_host_path")
def test_positions_that_are_no_grid():
    host = transformers_host("Sam2Video")
    host.position_ids[3:9] = torch.randint(9, (6, 2), generator=torch.Generator().manual_seed(0))
    assert error(fp.accelerate(copy.deepcopy(host)), host, inputs()) < 1e-5


def test_precision_follows_torch(precision):
    host, given = transformers_host("Sam2Video"), inputs(frames=7)
    module, want = fp.accelerate(copy.deepcopy(host)), run(host, given)
    close = run(module, given)
    _C.set_bf16("plain")
    try:
        for setting, least, most in (("high", 1e-7, 1e-3), ("medium", 1e-4, 5e-2)):
            precision(setting)
            assert least < float((run(module, given) - want).abs().max() / want.std()) < most
        precision("highest")
        assert torch.equal(run(module, given), close)
    finally:
        _C.set_bf16("best")


# ---------------------------------------------------------------- what is kept


def counted(monkeypatch):
    """How often a frame reads itself."""
    from fastprompt.nn.parts import memory

    calls, made = [], memory.turned_memory_read
    monkeypatch.setattr(memory, "turned_memory_read", lambda *a: calls.append(len(a[0])) or made(*a))
    return calls


def test_the_frame_reads_itself_once_for_all_objects(name, monkeypatch):
    module, first, second = fp.accelerate(HOSTS[name]()), of(name), of(name, seed=1)
    calls = counted(monkeypatch)
    run(module, first)
    assert calls == [1, 1]
    other = (first[0], *second[1:2], first[2], *second[3:])  # the memory of another object, and the same frame
    want = run(HOSTS[name](), other)
    torch.testing.assert_close(run(module, other), want, rtol=1e-4, atol=2e-5)
    assert calls == [1, 1, 1]
    run(module, second)
    assert calls == [1, 1, 1, 1, 1]


def test_objects_that_share_a_frame(name, monkeypatch):
    host = HOSTS[name]()
    features, memory, positions, rest, pointers, frames = of(name, objects=3)
    given = (features[:, :1].expand(-1, 3, -1), memory, positions[:, :1].expand(-1, 3, -1), rest, pointers, frames)
    calls = counted(monkeypatch)
    assert error(fp.accelerate(copy.deepcopy(host)), host, given) < 1e-5
    assert calls == [1, 3]


CHANGES = {
    "features": lambda m, given: given[0].mul_(1.5),
    "features behind torch's back": lambda m, given: given[0].numpy().__imul__(1.5),
    "positions": lambda m, given: given[2].mul_(1.5),
    "a weight of the first layer": lambda m, given: m.layers[0].self_attn.v_proj.weight.data.mul_(1.5),
    "a norm": lambda m, given: m.layers[0].layer_norm1.bias.data.add_(1.0),
    "eps": lambda m, given: setattr(m.layers[0].layer_norm1, "eps", 0.5),
    "the scale of one attention": lambda m, given: setattr(m.layers[1].self_attn, "scaling", 0.3),
    "the scale of the first": lambda m, given: setattr(m.layers[0].self_attn, "scaling", 0.3),
    "frequencies": lambda m, given: m.rotary_emb.inv_freq.mul_(1.5),
    "places": lambda m, given: m.position_ids.add_(3),
    "the scale of positions": lambda m, given: setattr(m.rotary_emb, "attention_scaling", 1.5),
    "bias": lambda m, given: setattr(m.layers[0].cross_attn_image.v_proj, "bias", None),
    "the last norm": lambda m, given: setattr(m, "layer_norm", torch.nn.LayerNorm(256, elementwise_affine=False)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_two_calls(change):
    host, given = transformers_host("Sam2Video"), inputs()
    module = fp.accelerate(copy.deepcopy(host))
    before = run(module, given)
    CHANGES[change](module, given)
    twin = inputs() if "features" not in change and change != "positions" else None
    CHANGES[change](host, twin or inputs())
    want = run(host, given)
    assert float((want - before).abs().max()) > 1e-3
    torch.testing.assert_close(run(module, given), want, rtol=1e-4, atol=2e-5)


def test_copies_and_pickles(name):
    host, given = HOSTS[name](), of(name)
    module = fp.accelerate(copy.deepcopy(host))
    want = run(module, given)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(run(twin, given), want)
    assert module.state_dict().keys() == host.state_dict().keys()
    fp.restore(module)
    assert type(module) is type(host)
    assert not [key for key in vars(module) if key.startswith("_fastprompt")]
    assert torch.equal(run(module, given), run(host, given))


# ---------------------------------------------------------------- the host's path


REFUSED = {
    "training": lambda m: m.train(),
    "a hook": lambda m: m.layers[1].linear1.register_forward_hook(lambda module, args, out: 2 * out),
    "an adapter": lambda m: m.layers[0].add_module("adapter", torch.nn.Linear(256, 256)),
    "GELU": lambda m: setattr(m.layers[1], "activation", torch.nn.GELU()),
    "a weight of a subclass": lambda m: m.layers[0].linear2.register_parameter("weight", Weight(m.layers[0].linear2)),
    "a layer of another kind": lambda m: m.layers.__setitem__(0, Layer(m.layers[0])),
    "another norm": lambda m: setattr(m.layers[0], "layer_norm3", torch.nn.Identity()),
}


class Weight(torch.nn.Parameter):
    def __new__(cls, linear):
        return torch.Tensor._make_subclass(cls, 2 * linear.weight.data, False)


class Layer(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, queries, **given):
        return self.layer(queries=2 * queries, **given)


@pytest.mark.parametrize("change", REFUSED)
def test_what_takes_the_host_s_path(change):
    host, given = transformers_host("Sam2Video"), inputs()
    module = fp.accelerate(copy.deepcopy(host))
    run(module, given)
    for changed in (module, host):
        REFUSED[change](changed)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for m in (module, host):
            torch.manual_seed(0)
            found.append(run(m, given))
    torch.testing.assert_close(*found, rtol=0, atol=0)
    if change != "training":
        assert fp.report(module).skipped


@pytest.mark.filterwarnings("ignore:fastprompt")
def test_switches_of_sam2():
    for options in ({"pos_enc_at_attn": True}, {"pos_enc_at_cross_attn_keys": False}, {"activation": "gelu"}):
        host, given = sam2_host(**options), inputs()
        assert torch.equal(run(fp.accelerate(copy.deepcopy(host)), given), run(host, given))


@pytest.mark.filterwarnings("ignore:fastprompt")
def test_gradients_are_the_host_s(name):
    host, given = HOSTS[name](), of(name)
    module, found = fp.accelerate(copy.deepcopy(host)), []
    for m in (module, host):
        features = given[0].clone().requires_grad_()
        further = [given[5]] if name == "EdgeTamVideo" else []
        m(features, given[1], given[2], given[3], given[4], *further).square().sum().backward()
        found.append(features.grad)
    assert torch.equal(*found)


@pytest.mark.filterwarnings("ignore:fastprompt")
@pytest.mark.parametrize(
    "change", [{"pointers": 9}, {"objects": 2}, {"pointers": None}, {"positions": False}], ids=lambda c: str(c)
)
def test_what_the_host_refuses(name, change):
    """The same error, or the same numbers."""
    features, memory, positions, rest, pointers, frames = of(name)
    if change == {"objects": 2}:
        memory = memory.expand(-1, 2, -1)
    pointers = change.get("pointers", pointers)
    rest = None if "positions" in change else rest
    given, found = (features, memory, positions, rest, pointers, frames), []
    host = HOSTS[name]()
    for m in (fp.accelerate(copy.deepcopy(host)), host):
        try:
            found.append(run(m, given))
        except Exception as problem:
            found.append((type(problem), str(problem)))
    if isinstance(found[1], tuple):
        assert found[0] == found[1]
    else:
        torch.testing.assert_close(*found, rtol=1e-4, atol=2e-5)


# ---------------------------------------------------------------- half precision, inference mode, compiling


@pytest.mark.usefixtures("no_host_path")
def test_half_precision(name):
    host, given = HOSTS[name]().bfloat16(), of(name)
    given = [x.bfloat16() if isinstance(x, torch.Tensor) else x for x in given]
    module = fp.accelerate(copy.deepcopy(host))
    got, plain, want = run(module, given), run(host, given), run(wide(host), given, torch.float64)
    assert got.dtype == plain.dtype
    assert float((got - want).abs().max()) <= 1.1 * float((plain - want).abs().max())


@pytest.mark.usefixtures("no_host_path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(name, dtype):
    host, given = HOSTS[name](), of(name)
    given = [x.to(dtype) if isinstance(x, torch.Tensor) else x for x in given]
    module = fp.accelerate(copy.deepcopy(host))
    with torch.autocast("cpu", torch.bfloat16):
        got, plain = run(module, given), run(host, given)
    assert got.dtype == plain.dtype
    assert float((got.float() - plain.float()).abs().max()) < 0.2


@pytest.mark.usefixtures("no_host_path")
def test_inference_mode(name):
    host = HOSTS[name]()
    module = fp.accelerate(copy.deepcopy(host))
    with torch.inference_mode():
        for seed in (0, 1):
            given = of(name, seed=seed)
            torch.testing.assert_close(run(module, given), run(host, given), rtol=1e-4, atol=2e-5)
        given[0].mul_(1.5)
        torch.testing.assert_close(run(module, given), run(host, given), rtol=1e-4, atol=2e-5)


@pytest.mark.usefixtures("no_host_path")
def test_compiled():
    module, given = fp.accelerate(transformers_host("Sam2Video")), inputs()
    want = run(module, given)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(compiled, given), want, rtol=1e-5, atol=1e-5)
    given[0].mul_(1.5)
    torch.testing.assert_close(run(compiled, given), run(module, given), rtol=1e-5, atol=1e-5)
