"""The Triton kernels of pooling, similarity and pruning: compiled PTX executed on CPU tensors, through their launchers and
through the operators, and Triton's own interpreter."""

import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

import triton_cases_pooling as cases  # noqa: E402
from fastprompt.kernels import pooling, pruning  # noqa: E402
from fastprompt.kernels import pooling_similarity as similarity  # noqa: E402
from ptx import Fault  # noqa: E402
from ptx.build import OnPtx, compile_launch  # noqa: E402

import fastprompt as fp  # noqa: E402
from fastprompt.ops import _known  # noqa: E402

NEVER_ON_75 = "bf16"  # sm_75 has no bfloat16


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the executor of PTX in the place of every kernel."""

    def install(arch, **launch):
        monkeypatch.setattr(cases, "HOW", "ieee" if arch == 75 else "tf32x3")
        for module in (pooling, similarity, pruning):
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                monkeypatch.setattr(module, name, OnPtx(getattr(module, name), arch, **launch))

    return install


@pytest.mark.parametrize(("name", "case"), cases.ALL, ids=str)
def test_compiled_for_sm_80(on_ptx, name, case):
    on_ptx(80, check_blocks=True)
    cases.CASES[name][0](*case)


# One case of each kernel; products of matrices on sm_90 are wgmma, which the interpreter does not know.
OTHERS = [
    (name, arch, case)
    for name, (_, all_cases) in cases.CASES.items()
    for arch, n in ((75, 1), (90, 1), (120, 2))
    for case in [next((c for c in all_cases[n:] if arch != 75 or NEVER_ON_75 not in c), all_cases[-1])]
    if (name, arch) != ("prior", 90)
]


@pytest.mark.parametrize(("name", "arch", "case"), OTHERS, ids=str)
def test_compiled_for_other_architectures(on_ptx, name, arch, case):
    on_ptx(arch, order=1)  # warps in random order
    cases.CASES[name][0](*case)


def test_triton_interpreter(run_cases):
    said = run_cases("triton_cases_pooling.py", TRITON_INTERPRET="1")
    left_out = sum(name in ("similarity", "prior") and case[:1] == ("bf16",) for name, case in cases.ALL)
    assert said == f"{len(cases.ALL) - left_out} cases\n", "all but products of bfloat16"


def test_a_wrong_size_is_caught(on_ptx):
    """The kernels trust the sizes that they are given: one token too many lies outside."""
    on_ptx(80)
    pruning.prune(torch.ones(1, 32, 4), torch.zeros(1, 32), 5)
    with pytest.raises(Fault, match="out of bounds"):
        pruning.prune(torch.ones(1, 32, 4), torch.zeros(1, 31), 5)


def rand(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


INDEX = torch.tensor([[5, -1, 3, 40, 3]])
KEPT = torch.arange(9) * 2
OPERATORS = {
    "masked_pool": (rand(0, 1, 5, 4, 6), (rand(1, 1, 2, 21, 30) > 0).byte(), 0, False, True, None, 1e-3, 0.0),
    "similarity_map": (rand(2, 1, 40, 20), rand(3, 1, 2, 40), 20.0, 1e-8, 1.0, 0, 0.0),
    "similarity_argmax": (rand(2, 1, 40, 20), rand(3, 1, 2, 40), 1.0, 1e-8, 1.0, 0.0),
    "prior_similarity": (rand(4, 1, 20, 18), rand(5, 2, 20, 33), (rand(6, 2, 33) > 0.3).float(), 1e-7),
    "film": (rand(7, 1, 4, 6), rand(8, 3, 4), rand(9, 3, 4), False),
    "cosine_scores": (rand(10, 2, 33, 20), rand(11, 1, 3, 20)),
    "gather_rows": (rand(12, 1, 33, 20), INDEX),
    "scatter_rows": (rand(13, 1, 33, 20), rand(14, 1, 5, 20), INDEX, 33),
    "prune_rows": (rand(15, 2, 34, 6)[:, 1:], rand(16, 2, 33), rand(17, 2, 33) > 0.7, torch.tensor([33, 20]), 40, 0.3),
    "match_tokens": (rand(18, 2, 18, 12), 7, 2),
    "merge_rows": (rand(19, 1, 18, 12), rand(20, 1, 18).abs(), KEPT[None], torch.arange(18)[None] // 2),
}


def outputs(found):
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("path", ["kernel", "formula"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(on_ptx, name, path):
    """What a CUDA tensor's call reaches, executed on CPU tensors, against the CPU's own kernel."""
    arguments = OPERATORS[name]
    want = getattr(torch.ops.fastprompt, name)(*arguments)
    on_ptx(80)
    with fp.backend("reference" if path == "formula" else "auto"):
        got = _known.OPERATORS[name].on_gpu(*arguments)
    for a, b in zip(outputs(got), outputs(want), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        torch.testing.assert_close(a, b, rtol=0, atol=0 if "rows" in name and name != "merge_rows" else 2e-5)


@pytest.mark.parametrize("path", ["kernel", "formula"])
def test_in_place(on_ptx, path):
    on_ptx(80)
    base, rows = rand(21, 1, 35, 5), rand(22, 1, 5, 5)
    want = base.clone()
    for out, scatter in ((base, _known.OPERATORS["scatter_rows_"].on_gpu), (want, torch.ops.fastprompt.scatter_rows_)):
        with fp.backend("reference" if path == "formula" and out is base else "auto"):
            scatter(out[:, 1:-1], rows, INDEX)
            scatter(out.transpose(1, 2)[:, :2], rows[..., :1].expand(1, 5, 35), INDEX % 3)  # not whole rows
    torch.testing.assert_close(base, want, rtol=0, atol=0)


TOO_LARGE = [("masked_pool", pooling, "LIMIT"), ("similarity_map", similarity, "LIMIT"),
             ("similarity_argmax", similarity, "LIMIT"), ("prior_similarity", similarity, "MOST_PIXELS"),
             ("prune_rows", pruning, "MOST_TOKENS"), ("merge_rows", pruning, "MOST_TOKENS")]  # fmt: skip


@pytest.mark.parametrize(("name", "module", "limit"), TOO_LARGE, ids=str)
def test_what_is_too_large_takes_the_formula(monkeypatch, name, module, limit):
    monkeypatch.setattr(module, limit, 1)  # no kernel is installed that could run here
    arguments = [x.half() if k == 0 and "prune" not in name and "merge" not in name else x
                 for k, x in enumerate(OPERATORS[name])]  # fmt: skip
    got = _known.OPERATORS[name].on_gpu(*arguments)
    want = getattr(torch.ops.fastprompt, name)(*[x.float() if k == 0 else x for k, x in enumerate(arguments)])
    for a, b in zip(outputs(got), outputs(want), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=3e-3)


# Triton compiles an integer of 1 into the kernel, which the executor does not: do they still compile?
ONES = [
    lambda: pooling.masked_pool(rand(0, 1, 1, 1, 1), rand(1, 1, 1, 1, 1), 0, True, True, None, 0.0, 0.0),
    lambda: similarity.similarity(rand(0, 1, 1, 1), rand(1, 1, 1, 1), 1.0, 0.0, 1.0, 0, "tf32x3"),
    lambda: similarity.prior(rand(0, 1, 1, 1), rand(1, 1, 1, 1), rand(2, 1, 1), 0.0, 1e-7, "tf32x3"),
    lambda: pruning.cosine_scores(rand(0, 1, 1, 1), rand(1, 1, 1, 1)),
    lambda: pruning.prune(rand(0, 1, 1, 1), rand(1, 1, 1), 1, KEPT[None, :1].byte(), 1, KEPT[None, :2]),
    lambda: pruning.gather(rand(0, 1, 1, 1), KEPT[None, :1]),
    lambda: pruning.scatter(None, rand(0, 1, 1, 1), KEPT[None, :1], rand(1, 1, 1, 1)),
    lambda: pruning.merge(rand(0, 1, 1, 1), rand(1, 1, 1), KEPT[None, :1], 1),
]


class WithOnes:
    """Compiles a launch as Triton's own does: integers of 1 are constants, but for those it is told not to look at."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, **constants):
        names = [p.name for p in self.kernel.params]
        free = {p.name for p in self.kernel.params if p.do_not_specialize}
        ones = {n: 1 for n, a in zip(names, args, strict=False) if isinstance(a, int) and a == 1 and n not in free}
        rest = [a for n, a in zip(names, args, strict=False) if n not in ones]
        assert compile_launch(self.kernel, rest, ones | constants, 80).asm["ptx"]


@pytest.mark.parametrize("launch", ONES)
def test_sizes_of_one_compile(monkeypatch, launch):
    for module in (pooling, similarity, pruning):
        for name in [n for n in vars(module) if n.endswith("_kernel")]:
            monkeypatch.setattr(module, name, WithOnes(getattr(module, name)))
    launch()
