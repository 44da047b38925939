"""The drop-ins of memory attention, against their hosts in float64."""

import copy
import pickle

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from memory_hosts import HOSTS, error, inputs, no_host_path, of, run, sam2_host, transformers_host, wide  # noqa: E402, F401

from fastprompt import _C  # noqa: E402


@pytest.fixture(params=HOSTS)
def name(request):
    return request.param


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
