"""kernels/jit.py: what is launched again is not looked up by Triton; what Triton compiles anew for is."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
triton = pytest.importorskip("triton", reason="triton is not installed")
tl = triton.language

from fastprompt.kernels.jit import Kernel, jit  # noqa: E402


@jit
def scale_kernel(x, out, count, factor, BLOCK: tl.constexpr, SQUARE: tl.constexpr):
    n = tl.arange(0, BLOCK)
    tl.store(out + n, tl.load(x + n, mask=n < count) * factor, mask=n < count)


class Compiled:
    def __init__(self, launches):
        self.launches = launches

    def __getitem__(self, grid):
        return lambda *arguments: self.launches.append((grid, arguments))


@pytest.fixture
def launched(monkeypatch):
    """The launches that Triton's own way took, and those of compiled kernels."""
    slow, quick = [], []

    def run(self, *arguments, grid, warmup, **constants):
        slow.append(arguments)
        return Compiled(quick)

    monkeypatch.setattr(triton.JITFunction, "run", run)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(scale_kernel, "compiled", {})
    return slow, quick


def test_a_second_launch_is_quick(launched):
    slow, quick = launched
    x, out = torch.ones(64), torch.empty(64)
    for grid in ((3,), (5, 2), (1, 2, 3)):
        scale_kernel[grid](x, out, 40, 2.0, SQUARE=True, BLOCK=64, num_warps=4)
    assert len(slow) == 1
    assert quick == [((5, 2, 1), (x, out, 40, 2.0, 64, True)), ((1, 2, 3), (x, out, 40, 2.0, 64, True))]


@pytest.mark.parametrize(
    "change",
    [
        {"x": torch.ones(65)[1:]},
        {"x": torch.ones(64, dtype=torch.float16)},
        {"count": 1},
        {"count": 48},
        {"count": 2**31},
        {"factor": 2},
        {"factor": None},
        {"BLOCK": 128},
        {"SQUARE": False},
        {"num_warps": 8},
    ],
    ids=lambda change: "-".join(f"{name}={str(value)[:12]}" for name, value in change.items()),
)
def test_what_triton_compiles_for(launched, change):
    slow, quick = launched
    given = {"x": torch.ones(64), "out": torch.empty(64), "count": 40, "factor": 2.0}
    constants = {"BLOCK": 64, "SQUARE": True, "num_warps": 4}
    scale_kernel[(1,)](*given.values(), **constants)
    changed = given | {n: v for n, v in change.items() if n in given}
    scale_kernel[(1,)](
        *changed.values(), **constants | {n: v for n, v in change.items() if n in constants | {"num_warps": 4}}
    )
    assert (len(slow), len(quick)) == (2, 0)


def test_another_device(launched, monkeypatch):
    slow, _ = launched
    for device in (0, 1):
        monkeypatch.setattr(torch.cuda, "current_device", lambda device=device: device)
        scale_kernel[(1,)](torch.ones(64), torch.empty(64), 40, 2.0, BLOCK=64, SQUARE=True)
    assert len(slow) == 2


def test_every_kernel_that_is_launched_is_one():
    import pkgutil

    import fastprompt.kernels

    found = 0
    for module in pkgutil.iter_modules(fastprompt.kernels.__path__):
        loaded = __import__(f"fastprompt.kernels.{module.name}", fromlist=["_"])
        for name in [n for n in vars(loaded) if n.endswith("_kernel")]:
            found += 1
            assert isinstance(getattr(loaded, name), Kernel), f"{module.name}.{name}: @jit, not @triton.jit"
    assert found > 20
