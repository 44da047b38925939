"""kernels/guidance.py, regions.py and clicks.py behind their operators: compiled PTX executed on CPU tensors."""

import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

import guidance_cases  # noqa: E402
from fastprompt.kernels import clicks, guidance  # noqa: E402
from fastprompt.kernels import guidance_regions as regions  # noqa: E402
from ptx import Fault  # noqa: E402
from ptx.build import OnPtx  # noqa: E402

import fastprompt as fp  # noqa: E402
from fastprompt import _gpu  # noqa: E402
from fastprompt._later import Later  # noqa: E402
from fastprompt.nn import DistMaps, dist_maps  # noqa: E402
from fastprompt.ops._operator import OPERATORS  # noqa: E402
from fastprompt.ops.guidance.click_sets import arguments, check_clicks, check_encoding  # noqa: E402

MODULES = (guidance, regions, clicks)
NAMES = ("click_map", "box_map", "superpixel_map", "proposal_vote_map", "next_click")


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the kernels for a GPU, on the executor of PTX, in the place of the operators."""

    def install(arch=80, **launch):
        for module in MODULES:
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                monkeypatch.setattr(module, name, OnPtx(getattr(module, name), arch, **launch))
        for operator in map(OPERATORS.get, NAMES):
            monkeypatch.setattr(operator, "overload", operator.on_gpu)

    return install


@pytest.mark.parametrize("case", guidance_cases.SMALL, ids=lambda case: case.name)
def test_compiled_for_sm_80(on_ptx, case):
    expected = case.run()
    on_ptx(check_blocks=True)
    case.compare(case.run(), expected)


def some():
    for operator in NAMES:
        mine = [case for case in guidance_cases.SMALL if case.operator == operator]
        yield from (mine[len(mine) // 3], mine[-1])


@pytest.mark.parametrize("arch", [75, 90, 120])
@pytest.mark.parametrize("case", list(some()), ids=lambda case: case.name)
def test_compiled_for_other_architectures(on_ptx, case, arch):
    expected = case.run()
    on_ptx(arch, order=1)  # warps in random order
    case.compare(case.run(), expected)


def test_blocks_in_any_order(on_ptx):
    """The programs of the next click meet in atomics: which one is the last does not matter."""
    for case in list(guidance_cases.next_click_cases((6, 150), batch=2))[::3]:
        expected = case.run()
        for order in ("forward", "reverse", 5):
            with pytest.MonkeyPatch.context() as patch:
                for name in ("click_columns_kernel", "best_click_kernel"):
                    patch.setattr(clicks, name, OnPtx(getattr(clicks, name), 80, order=order))
                patch.setattr(OPERATORS["next_click"], "overload", OPERATORS["next_click"].on_gpu)
                assert case.run() == expected


# ---------------------------------------------------------------- a view of the composed channels


def test_maps_into_a_view(on_ptx):
    size = (18, 67)
    points, labels = guidance_cases.clicks(2, 2, 5, size)
    expected = fp.compose_guidance(size=size, points=points, labels=labels, boxes=torch.ones(2, 1, 4))
    on_ptx()
    out = torch.full((2, 5, *size), 9.0)
    c, e = check_clicks(points, labels), check_encoding("disk", size, None, None, None, None, None)
    guidance.click_map(*arguments(c, e, size), out=out[:, 1:3])
    guidance.box_map(torch.ones(2, 1, 4), size, False, 0.0, -torch.inf, torch.inf, out=out[:, 3:4])
    assert torch.equal(out[:, 1:4], expected)
    assert (out[:, [0, 4]] == 9).all()


# ---------------------------------------------------------------- what cannot be raised, and what is refused


def test_bad_regions_are_nan(on_ptx):
    region = torch.tensor([[[0, 0, 1, 1], [-1, 0, 1, 8]]])
    points, labels = torch.tensor([[[0.0, 0.0], [9.0, 0.0]]]), torch.tensor([[1, 0]])
    on_ptx()
    got = regions.superpixel_map(region, points, labels, [1, 0], 255.0)
    assert got[0, 1].isnan().all(), "a click outside"
    assert got[0, 0].isnan().tolist() == [[False] * 4, [True, False, False, True]], "no superpixel"
    got = regions.superpixel_map(region, torch.tensor([[[3.0, 1.0]]]), torch.tensor([[1]]), [1], 255.0)
    assert got.isnan().all(), "a click on no superpixel"
    votes = regions.proposal_vote_map(torch.ones(1, 2, 2, 4, dtype=torch.uint8), points, labels, [1, 0])
    assert (votes[0, 0] == 2).all()
    assert votes[0, 1].isnan().all()


def test_no_pixels(on_ptx):
    on_ptx()
    assert fp.click_map(torch.zeros(2, 1, 2), size=(0, 4)).shape == (2, 1, 0, 4)
    assert fp.box_map(torch.zeros(0, 1, 4), size=(3, 4)).shape == (0, 1, 3, 4)
    assert fp.next_click(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4, dtype=torch.bool)) == [None, None]


def test_reference_on_a_gpu(on_ptx):
    points = torch.tensor([[1.0, 2.0]])
    expected = fp.click_map(points, size=(5, 7))
    on_ptx()
    with fp.backend("reference"):
        assert torch.equal(fp.click_map(points, size=(5, 7)), expected)


def test_shapes_on_a_gpu():
    """Without a device: calls of tensors that only claim to lie there."""
    with torch._subclasses.FakeTensorMode():
        on = torch.device("cuda:0")
        points, labels = torch.empty(2, 4, 2, device=on), torch.empty(2, 4, dtype=torch.int64, device=on)
        masks = torch.empty(2, 5, 7, dtype=torch.bool, device=on)
        coords, image = torch.empty(2, 4, 3, device=on), torch.empty(2, 3, 5, 7, device=on)
        regions = masks.long()
        found = {
            "clicks": fp.click_map(points, labels, size=(5, 7)),
            "ragged": fp.click_map([points[0], points[1, :2]], [labels[0], labels[1, :2]], size=(5, 7)),
            "DistMaps": DistMaps(5, use_disks=True)(image, coords),
            "superpixels": fp.superpixel_map(regions, points, labels),
            "proposals": fp.proposal_vote_map(masks[:, None], points, labels),
            "next click": torch.ops.fastprompt.next_click(masks, masks, points.int(), 0.0, -1)[:, :2, None, None],
        }
        for name, x in found.items():
            assert x.device == on, name
            assert x.shape[:2] == (2, 2), name
        assert fp.box_map(torch.empty(2, 1, 4, device=on), size=(5, 7)).device == on
    fake = type("Points", (), {"is_cuda": True})
    with pytest.MonkeyPatch.context() as patch:
        assert dist_maps.no_kernel(fake) is None
        patch.setattr(_gpu, "has_triton", lambda: False)
        assert "pip install triton" in dist_maps.no_kernel(fake)


def test_sizes_that_disagree():
    """What a graph gives to torch.ops: the kernels would follow it out of the tensors."""
    points, labels, region = torch.ones(2, 3, 2), torch.ones(2, 3).long(), torch.zeros(2, 5, 7).long()
    masks, taken, click = region == 0, torch.zeros(2, 1, 2).int(), ([1], [5, 7], 0, [4.0], 9.0, 1.0, False, 9.0)
    for name, args, error in (
        ("click_map", (points, labels[:, :2], *click), ValueError),
        ("click_map", (points[..., :1], labels, *click), ValueError),
        ("box_map", (torch.ones(2, 3, 5), [5, 7], True, 0.0, 0.0, 1.0), ValueError),
        ("superpixel_map", (region, points[:1], labels[:1], [1], 9.0), ValueError),
        ("proposal_vote_map", (masks[:, None], points, labels[:1], [1]), ValueError),
        ("next_click", (masks, masks[:, :3], taken, 0.0, -1), ValueError),
        ("next_click", (masks, masks, taken[:1], 0.0, -1), ValueError),
        ("next_click", (masks, masks, taken.long(), 0.0, -1), TypeError),
    ):
        with pytest.raises(error, match="must h"):
            OPERATORS[name].on_gpu(*args)


@pytest.mark.parametrize("name", ["polygon_mask", "scribble_map", "prompt_unified_encoding"])
def test_drawn_on_the_cpu_only(name):
    with pytest.raises(ValueError, match=rf"fastprompt\.{name} has no kernel for a GPU: .*\.cpu\(\)"):
        OPERATORS[name].on_gpu(torch.zeros(1, 3, 2))


def test_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "fastprompt.kernels.guidance")
    with pytest.raises(ValueError, match="need triton: pip install triton"):
        Later("fastprompt.kernels.guidance").click_map()


# ---------------------------------------------------------------- the tests can fail

BUGS = [  # kernel, its source, what is wrong instead
    (guidance, "click_map_kernel", "tl.minimum(nearest, tl.min(", "tl.minimum(nearest, 0.5 * tl.min("),
    (guidance, "click_map_kernel", "& is_click(px, py) & (near", "& (px == px) & (near"),
    (guidance, "click_map_kernel", "== wanted) & is_click", "== 1) & is_click"),
    (guidance, "click_map_kernel", "(x < width)[None, :]", "(x <= width)[None, :]"),
    (guidance, "stretch_kernel", "least = tl.minimum(least,", "least = tl.minimum(1.0,"),
    (guidance, "box_map_kernel", "(x1 == x1)", "(x0 == x0)"),
    (regions, "superpixel_sums_kernel", "(p % width)", "(p // width)"),
    (regions, "superpixel_map_kernel", "dx * dx + dy * dy", "dx * dx + dx * dy"),
    (regions, "proposal_votes_kernel", "!= 0).to(tl.int32)", ">= 0).to(tl.int32)"),
    (regions, "proposal_map_kernel", "inside | (weight < 0)", "inside & (weight > 1)"),
    (clicks, "click_columns_kernel", "end = tl.min(run, 0)", "end = end"),
    (clicks, "click_columns_kernel", "tl.minimum(tl.abs(up), down)", "tl.abs(up)"),
    (clicks, "click_columns_kernel", "begin = tl.max(run, 0)", "begin = begin"),
    (clicks, "best_click_kernel", "while step * step < open_", "while step * step * 4 < open_"),
    (clicks, "best_click_kernel", "taken |= (tl.load(at) == x)", "taken |= (tl.load(at) == y)"),
    (clicks, "best_click_kernel", "- 1 - place)", "- 1 + place)"),
    (clicks, "best_click_kernel", "(own < 0)", "(own > 0)"),
    (clicks, "best_click_kernel", "tl.maximum(width - x, 0)", "width - x"),
    (clicks, "best_click_kernel", "done == programs - 1", "done == 0"),
]


@pytest.mark.parametrize(("module", "name", "right", "wrong"), BUGS, ids=lambda x: x if isinstance(x, str) else "")
def test_planted_bugs_are_found(on_ptx, module, name, right, wrong):
    kernel = getattr(module, name)
    source = kernel.src
    assert source.count(right) == 1
    operators = {"guidance": ("click_map", "box_map"), "guidance_regions": ("superpixel_map", "proposal_vote_map")}
    mine = operators.get(module.__name__.rpartition(".")[2], ("next_click",))
    cases = [case for case in guidance_cases.SMALL if case.operator in mine]
    expected = [case.run() for case in cases]
    on_ptx(check_blocks=True, order="forward")
    kernel._unsafe_update_src(source.replace(right, wrong))
    try:
        for case, wanted in zip(cases[::-1], expected[::-1], strict=True):  # the telling ones are at the end
            case.compare(case.run(), wanted)
    except (AssertionError, Fault):
        return
    finally:
        kernel._unsafe_update_src(source)
    pytest.fail("not found")
