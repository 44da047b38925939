"""SAM 2's encoder and memory attention on a GPU: the way that drop-ins take there, and on a device (``-m gpu``)."""

import contextlib
import copy

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from gpu_way import TOLERANCE, device  # noqa: E402, F401
from memory_hosts import HOSTS, no_host_path, of, run  # noqa: E402, F401
from test_hiera import SOURCES, pictures, tensors  # noqa: E402

from fastprompt.nn.parts import hiera, memory  # noqa: E402


@pytest.fixture
def calls(monkeypatch):
    """How often the attentions are called."""
    made = []

    def counted(operator):
        return lambda *args: made.append(operator.name) or operator(*args)

    for module, name in ((hiera, "grid_attention"), (memory, "turned_memory_read")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    return made


def agree(got, want, dtype):
    assert got.dtype == want.dtype
    assert float((got.float() - want.float()).abs().max()) <= TOLERANCE[dtype] * float(want.float().abs().max())


def skip_if_needless(dtype, autocast, device):
    if autocast and dtype == torch.float32:
        pytest.skip("autocast lowers")
    if device == "cpu" and dtype == torch.float16:
        pytest.skip("the CPU's convolutions of float16 take minutes, and the way is that of bfloat16")


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("autocast", [False, True], ids=["itself", "autocast"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.usefixtures("no_host_path")
@torch.no_grad()
def test_encoder(source, dtype, autocast, device, calls):
    """Ragged windows, pooled queries, a layer without windows."""
    skip_if_needless(dtype, autocast, device)
    model, x = SOURCES[source]("B+")[1].eval().to(device), pictures(1, 96, 160).to(device)
    if not autocast:
        model, x = model.to(dtype), x.to(dtype)
    with torch.autocast(device, dtype) if autocast else contextlib.nullcontext():
        want = tensors(model(x))
        got = tensors(fp.accelerate(model)(x))
    assert calls == ["grid_attention"] * 6
    for g, w in zip(got, want, strict=True):
        agree(g, w, dtype)


def test_gradient_of_the_encoder(device, calls):
    model, x = SOURCES["transformers"]("T")[1].eval().to(device), pictures(1, 64, 96).to(device)
    leaves = [x.requires_grad_(), *model.parameters()]

    def gradients():
        return torch.autograd.grad(sum(y.square().sum() for y in tensors(model(x))[:3]), leaves, allow_unused=True)

    want = gradients()
    fp.accelerate(model)
    got = gradients()
    assert calls
    for g, w in zip(got, want, strict=True):
        assert (g is None) == (w is None)
        assert w is None or float((g - w).abs().max()) <= 2e-4 * float(w.abs().max())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("autocast", [False, True], ids=["itself", "autocast"])
@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.usefixtures("no_host_path")
def test_memory(name, dtype, autocast, device, calls):
    skip_if_needless(dtype, autocast, device)
    host = HOSTS[name]().eval().to(device)
    given = tuple(x.to(device) if isinstance(x, torch.Tensor) else x for x in of(name, objects=2))
    if not autocast:
        host = host.to(dtype)
    fast = fp.accelerate(copy.deepcopy(host))
    with torch.autocast(device, dtype) if autocast else contextlib.nullcontext():
        want, got = (run(module, given, None if autocast else dtype) for module in (host, fast))
    assert calls == ["turned_memory_read"] * 4
    agree(got, want, dtype)
