"""SAM 2's encoder and memory attention on a GPU: the way that drop-ins take there, and on a device (``-m gpu``)."""

import contextlib
import copy

import pytest

import fastprompt as fp
from fastprompt import _gpu

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from test_hiera import SOURCES, pictures, tensors  # noqa: E402
from test_memory_hosts import HOSTS, no_host_path, of, run  # noqa: E402, F401

from fastprompt.nn.parts import drop_in, hiera, memory  # noqa: E402

needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
DEVICES = ["as if on a GPU", pytest.param("cuda", marks=needs_gpu)]
TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}  # of the largest value


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """A GPU; or the CPU's tensors on a GPU's way through the drop-ins, with the CPU's attention."""
    if request.param != "cuda":
        monkeypatch.setattr(_gpu, "is_cuda", lambda x: isinstance(x, torch.Tensor))
        monkeypatch.setattr(_gpu, "triton_reason", lambda: None)
        monkeypatch.setattr(drop_in, "CPU", torch.device("meta"))  # no module is there: none is copied to float32
    return "cuda" if request.param == "cuda" else "cpu"


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
