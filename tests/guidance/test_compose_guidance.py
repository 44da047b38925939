"""compose_guidance: the same bits as its parts, in one array."""

import itertools

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
SIZE = (23, 31)


def parts(rng, batch):
    lead = () if batch is None else (batch,)
    return {
        "image": {"image": rng.random((*lead, 3, *SIZE)).astype(np.float32)},
        "previous": {"previous_mask": rng.random((*lead, 1, *SIZE)).astype(np.float32)},
        "clicks": {"points": rng.uniform(0, 30, (*lead, 6, 2)).astype(np.float32), "labels": rng.integers(0, 2, (*lead, 6))},
        "boxes": {"boxes": rng.uniform(0, 30, (*lead, 2, 4)).astype(np.float32)},
        "scribbles": {"scribbles": strokes(rng, batch), "scribble_labels": np.array([1, 0]) if batch is None else [[1, 0]] * batch},
    }  # fmt: skip


def strokes(rng, batch):
    one = lambda: [rng.uniform(0, 30, (4, 2)), rng.uniform(0, 30, (2, 2))]  # noqa: E731
    return one() if batch is None else [one() for _ in range(batch)]


def expected(given, batch, encoding, options, box_encoding):
    out = [given[k] for k in ("image", "previous_mask") if k in given]
    if "points" in given:
        out.append(fp.click_map(given["points"], given["labels"], size=SIZE, encoding=encoding, **options))
    if "boxes" in given:
        out.append((fp.box_map if box_encoding == "map" else fp.box_distance_map)(given["boxes"], size=SIZE))
    if "scribbles" in given:
        pairs = [(given["scribbles"], given["scribble_labels"])]
        if batch is not None:
            pairs = zip(given["scribbles"], given["scribble_labels"], strict=True)
        maps = [fp.scribble_map(s, k, size=SIZE, thickness=3) for s, k in pairs]
        out.append(maps[0] if batch is None else np.stack(maps))
    return np.concatenate(out, -3)


def tensors(x):
    if isinstance(x, np.ndarray):
        return torch.from_numpy(x)
    return [tensors(p) for p in x] if isinstance(x, list) else x


@pytest.mark.parametrize("kind", ["numpy", "torch", "reference", "torch reference"])
@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize(
    ("encoding", "options", "box_encoding"),
    [("disk", {}, "map"), ("gaussian", {"sigma": [2, 9]}, "distance"), ("euclidean", {"clip": 9, "normalize": "minmax"}, "map")],
)  # fmt: skip
def test_equals_its_parts(rng, batch, encoding, options, box_encoding, kind):
    available = parts(rng, batch)
    for count in (1, 2, 5):
        for names in itertools.combinations(available, count):
            given = {k: v for name in names for k, v in available[name].items()}
            want = expected(given, batch, encoding, options, box_encoding)
            with fp.backend("reference" if "reference" in kind else "auto"):
                arrays = {k: tensors(v) for k, v in given.items()} if "torch" in kind else given
                got = fp.compose_guidance(
                    size=SIZE,
                    **arrays,
                    encoding=encoding,
                    click_options=options,
                    box_encoding=box_encoding,
                    thickness=3,
                )
            assert got.dtype in (np.float32, torch.float32)
            np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=3e-5 if box_encoding == "distance" else 1e-5)


def test_memory_is_the_output(rng):
    import tracemalloc

    given = {"size": (700, 800), "points": rng.uniform(0, 700, (1, 40, 2)), "labels": np.ones((1, 40), int)}
    given |= {"boxes": rng.uniform(0, 700, (1, 1, 4)), "previous_mask": np.zeros((1, 1, 700, 800), np.float32)}
    fp.compose_guidance(**given)
    tracemalloc.start()
    try:
        out = fp.compose_guidance(**given)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes + 2**18


def test_gradient_and_compile(rng):
    given = parts(rng, 2)
    image, previous = (
        torch.from_numpy(given[k][n]).requires_grad_() for k, n in (("image", "image"), ("previous", "previous_mask"))
    )
    points, labels = (torch.from_numpy(x) for x in given["clicks"].values())
    boxes = torch.from_numpy(given["boxes"]["boxes"])

    def call(image, previous, points, labels, boxes):
        return fp.compose_guidance(
            size=SIZE, image=image, previous_mask=previous, points=points, labels=labels, boxes=boxes, encoding="tanh",
            scribbles=[[points[0]], [points[1]]], scribble_labels=[[1], [0]],
        )  # fmt: skip

    out = call(image, previous, points, labels, boxes)
    weight = torch.rand(out.shape)
    found = torch.autograd.grad((out * weight).sum(), [image, previous])
    assert torch.equal(found[0], weight[:, :3])
    assert torch.equal(found[1], weight[:, 3:4])
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(image, previous, points, labels, boxes), out)


def test_wrong_calls(rng):
    points, mask = np.zeros((2, 3, 2)), np.zeros((1, *SIZE))
    cases = [
        ({}, ValueError, "needs at least one of image, previous_mask, points, boxes, scribbles"),
        ({"image": np.zeros((3, 5, 5))}, ValueError, r"image must be \(\[B,\] C, H, W\) with the size \(23, 31\)"),
        ({"previous_mask": np.zeros(SIZE)}, ValueError, "previous_mask must be"),
        ({"points": points, "previous_mask": mask}, ValueError, "batch sizes must be the same in all arguments"),
        ({"points": points, "boxes": np.zeros((3, 1, 4))}, ValueError, "batch sizes must be the same"),
        ({"points": points, "click_options": {"sigmas": 3}}, ValueError, r"click_options must be among .* got \['sigmas'\]"),
        ({"boxes": np.zeros(4), "box_encoding": "sdf"}, ValueError, "box_encoding must be one of map, distance, got 'sdf'"),
        ({"scribbles": np.zeros((3, 2))}, TypeError, "scribbles must be a list of strokes"),
        ({"points": torch.zeros(3, 2), "previous_mask": mask}, TypeError, "must both be NumPy arrays or both torch tensors"),
        ({"scribbles": [[[np.zeros((2, 2))]]]}, ValueError, r"strokes\[0\] must be \(N, 2\)"),
    ]  # fmt: skip
    for given, error, message in cases:
        with pytest.raises(error, match=message):
            fp.compose_guidance(size=SIZE, **given)
