"""Guidance maps, the Euclidean transform and the next click on a GPU (``-m gpu``): the same as on the CPU, on the
caller's stream, without waiting for the host, and in a CUDA graph."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
pytest.importorskip("triton", reason="triton is not installed")

import guidance_cases  # noqa: E402

import fastprompt as fp  # noqa: E402
from fastprompt import _C  # noqa: E402
from fastprompt.nn import DistMaps  # noqa: E402

SIZE = (480, 854)
needs_cuda_build = pytest.mark.skipif(
    not hasattr(_C, "euclidean_distance_transform_cuda"), reason="this build has no CUDA kernels"
)


@pytest.mark.parametrize("cases", ["small", "real"])
def test_same_as_on_the_cpu(cases):
    for case in guidance_cases.SMALL if cases == "small" else guidance_cases.real_cases():
        got = case.run("cuda")
        assert not isinstance(got, torch.Tensor) or got.is_cuda, case.name
        try:
            case.compare(got, case.run())
        except AssertionError as error:
            raise AssertionError(case.name) from error


@needs_cuda_build
def test_euclidean_distance_transform():
    torch.manual_seed(0)
    for shape, dims in (((3, 480, 854), 2), ((1, 1), 2), ((2, 33, 517), 2), ((2, 40, 50, 60), 3), ((600, 9, 17), 3)):
        for spacing in (1.0, (3.0, 0.7, 0.7)[-dims:]):
            for share in (1e-4, 0.1):
                seeds = torch.rand(shape) < share
                got = fp.euclidean_distance_transform(seeds.cuda(), spacing=spacing, dims=dims)
                expected = fp.euclidean_distance_transform(seeds, spacing=spacing, dims=dims)
                tolerance = 0 if spacing == 1 else 3e-7
                torch.testing.assert_close(
                    got.cpu(), expected, rtol=tolerance, atol=0, msg=f"{shape} {spacing} {share}"
                )


@needs_cuda_build
def test_a_plane_that_is_too_tall():
    with pytest.raises(ValueError, match=r"at most 12288 rows .*\(1, 12289, 2\): call seeds\.cpu\(\)"):
        fp.euclidean_distance_transform(torch.ones(12289, 2, device="cuda"))


def on_device():
    """Calls whose arguments lie on the device already."""
    points, labels = (x.cuda() for x in guidance_cases.clicks(1, 2, 20, SIZE))
    coords = torch.cat([points.flip(-1), points[..., :1]], 2)
    image, maps = torch.zeros(2, 3, *SIZE, device="cuda"), DistMaps(5, use_disks=True)
    inside = points.clamp(0, 400).nan_to_num()
    region = torch.arange(SIZE[0] * SIZE[1], device="cuda").reshape(1, *SIZE).expand(2, -1, -1) // 900
    member = torch.rand(2, 20, *SIZE, device="cuda") < 0.5
    target, pred = member[:, 0], member[:, 1]
    taken = torch.zeros(2, 1, 2, dtype=torch.int32, device="cuda")
    fp.next_click(target, pred)  # registers the operator
    next_click = torch.ops.fastprompt.next_click.default
    calls = {
        "click_map": lambda: fp.click_map(points, labels, size=SIZE, encoding="gaussian", normalize="minmax"),
        "DistMaps": lambda: maps(image, coords),
        "box_map": lambda: fp.box_distance_map(torch.cat([points, points + 9], 2), size=SIZE),
        "superpixel_map": lambda: fp.superpixel_map(region, inside, labels),
        "proposal_vote_map": lambda: fp.proposal_vote_map(member, inside, labels),
        "next_click": lambda: next_click(pred, target, taken, 0.0, -1),
        "compose_guidance": lambda: fp.compose_guidance(size=SIZE, image=image, points=points, labels=labels),
    }
    if hasattr(_C, "euclidean_distance_transform_cuda"):
        calls["euclidean_distance_transform"] = lambda: fp.euclidean_distance_transform(target)
    return calls


def test_nothing_waits_for_the_host():
    for name, call in on_device().items():
        expected = call()
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(got, expected), name


def test_streams_and_graphs():
    for name, call in on_device().items():
        expected = call()
        torch.cuda.synchronize()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            on_side = call()
        side.synchronize()
        assert torch.equal(on_side, expected), name
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call()
        for _ in range(2):
            captured.zero_()
            graph.replay()
            torch.cuda.synchronize()
            assert torch.equal(captured, expected), name


def test_composed_channels():
    points, labels = guidance_cases.clicks(4, 2, 9, SIZE)
    boxes, image = torch.rand(2, 3, 4) * 400, torch.rand(2, 3, *SIZE)
    given = {"image": image, "points": points, "labels": labels, "boxes": boxes}
    options = {"size": SIZE, "encoding": "tanh", "box_encoding": "distance"}
    got = fp.compose_guidance(**{name: x.cuda() for name, x in given.items()}, **options)
    torch.testing.assert_close(got.cpu(), fp.compose_guidance(**given, **options), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="scribbles are drawn on the CPU"):
        fp.compose_guidance(size=SIZE, scribbles=[points[0].nan_to_num().cuda()])


def test_the_reference_on_a_gpu():
    points = torch.tensor([[3.0, 4.0]])
    with fp.backend("reference"):
        got = fp.click_map(points.cuda(), size=(9, 9))
        assert got.is_cuda
        assert torch.equal(got.cpu(), fp.click_map(points, size=(9, 9)))
