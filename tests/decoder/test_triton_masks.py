"""The Triton kernels of masks: compiled PTX executed on CPU tensors, and Triton's own interpreter."""

import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from fastprompt.kernels import decoder_head as masks  # noqa: E402
from fastprompt.kernels import decoder_mlps as token_mlps  # noqa: E402
from ptx import Fault  # noqa: E402
from ptx.build import OnPtx  # noqa: E402
from triton_mask_cases import ALL, CASES, KERNELS, normal  # noqa: E402


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the executor of PTX in the place of every kernel."""

    def install(arch, **launch):
        for module in KERNELS:
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                kernel = getattr(module, name)
                kernel = kernel.kernel if isinstance(kernel, OnPtx) else kernel
                monkeypatch.setattr(module, name, OnPtx(kernel, arch, **launch))

    return install


@pytest.mark.parametrize(("name", "case"), ALL, ids=str)
def test_compiled_for_sm_80(on_ptx, name, case):
    on_ptx(80, check_blocks=True)
    CASES[name][0](*case)


@pytest.mark.parametrize(("name", "arch"), [(name, arch) for name in CASES for arch in (75, 90, 120)])
def test_compiled_for_other_architectures(on_ptx, name, arch):
    on_ptx(arch, order=1)  # warps in random order
    CASES[name][0](*CASES[name][1][2 if arch == 120 else 1])


def test_the_order_of_blocks_changes_no_bit(on_ptx):
    """Whichever program comes last sums the parts of the token MLPs, in their order."""
    tokens, weights = (
        normal(1, 2, 3, 32),
        [normal(n, *shape) for n, shape in enumerate([(48, 32), (48,), (5, 48), (5,)] * 2)],
    )
    found = []
    for order in ("forward", "reverse", 1, 2):
        on_ptx(80, order=order)
        found.append(token_mlps.token_mlps(tokens, [0, 2], weights, 2))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_a_wrong_size_is_caught(on_ptx):
    """The kernels trust the sizes that they are given: one vector too few lies outside."""
    on_ptx(80)
    image, w = torch.ones(1, 16, 2, 2), [torch.ones(16, 4, 2, 2), *[torch.ones(4)] * 3, torch.ones(4, 4, 2, 2)]
    masks.mask_head(image, torch.ones(1, 2, 4), *w, torch.ones(4), None, None, 1e-6)
    with pytest.raises(Fault, match="out of bounds"):
        masks.mask_head(image, torch.ones(1, 2, 4), *w, torch.ones(3), None, None, 1e-6)


def test_triton_interpreter(run_cases):
    said = run_cases("triton_mask_cases.py", TRITON_INTERPRET="1")
    left_out = sum(name != "resize_masks" and case[0] == "bf16" for name, case in ALL)
    assert said == f"{len(ALL) - left_out} cases\n", "all but products in bfloat16"
