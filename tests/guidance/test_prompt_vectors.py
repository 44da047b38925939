"""VPUFormer's vectors against loops written from its description, SAM's Fourier features against its own classes."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def vectors(request):
    def run(*arrays, **options):
        with fp.backend("reference" if "reference" in request.param else "auto"):
            if "torch" in request.param:
                if "extents" in options:
                    options["extents"] = torch.from_numpy(np.array(options["extents"]))
                return fp.prompt_unified_encoding(*(torch.from_numpy(np.array(x)) for x in arrays), **options).numpy()
            return fp.prompt_unified_encoding(*arrays, **options)

    return run


def gaussian(length, centre, radius, sigma, peak):
    out = np.zeros(length)
    for i in range(max(0, centre - radius), min(length, centre + radius + 1)):
        out[i] = np.exp(-((i - centre) ** 2) / (2 * sigma**2)) + (peak if i == centre else 0)
    return out


@pytest.mark.parametrize(("sigma", "peak", "scale"), [(3, True, 1), (1.5, False, 1), (3, True, 2), (2, True, 0.5)])
def test_clicks(rng, vectors, sigma, peak, scale):
    points = rng.uniform(-12, 75, (2, 24, 2)).astype(np.float32)
    points[:, ::2] = points[:, ::2].round()
    labels = rng.choice([1, 0, -1], (2, 24))
    got = vectors(points, labels, size=(40, 64), sigma=sigma, heighten_peak=peak, scale=scale)
    height, width = int(40 * scale), int(64 * scale)
    assert got.shape == (2, 24, width + height + 3)
    for b, n in np.ndindex(2, 24):
        (x, y), row = points[b, n], got[b, n]
        if labels[b, n] == -1 or (x < 0 and y < 0):
            np.testing.assert_array_equal(row, [0] * (width + height + 2) + [1])
            continue
        parts = [
            gaussian(length, int(np.float32(p) * np.float32(scale)), int(3 * sigma), sigma, float(peak))
            for length, p in ((width, x), (height, y))
        ]
        bits = [1, 0, 0] if labels[b, n] == 1 else [0, 1, 0]
        np.testing.assert_allclose(row, np.concatenate([*parts, bits]), rtol=1e-6, atol=1e-9)


def test_lengths_and_peak():
    got = fp.prompt_unified_encoding([[100, 200]], [1], size=(448, 448))
    assert got.shape == (1, 899)
    assert got[0, 100] == 2
    assert got[0, 448 + 200] == 2


def test_truncation_towards_zero(vectors):
    """A click at -0.7 is at 0, not at -1."""
    got = vectors(np.array([[-0.7, 3.9]]), np.array([1]), size=(20, 20))
    assert got[0, 0] == 2
    assert got[0, 20 + 3] == 2


def test_corner_trap(vectors):
    """VPUFormer's vectors are zero near the top right and bottom left corners: (445, 3) and (3, 445) of 448."""
    points, labels = np.array([[445, 3], [3, 445], [3, 3], [445, 445], [200, 3]]), np.ones(5, int)
    right = vectors(points, labels, size=(448, 448))
    host = vectors(points, labels, size=(448, 448), compat=True)
    assert (right[:, :-3].max(1) == 2).all()
    assert host[:2, :-3].max() == 0
    np.testing.assert_array_equal(host[2:], right[2:])
    np.testing.assert_array_equal(host[:, -3:], right[:, -3:])


def test_boxes(vectors):
    points = np.array([[20.0, 15], [30, 20], [20, 15], [5, 6]])
    extents = np.array([[24.0, 13], [9, 40], [np.nan, np.nan], [100, 6]])
    got = vectors(points, np.array([1, 0, 1, 1]), size=(40, 64), extents=extents)
    radius = lambda w: (w // 2 * 2 - 1 - 1) // 2  # noqa: E731
    for row, (x, y), (w, h) in zip(got, points.astype(int), extents, strict=True):
        if np.isnan(w):
            want = [gaussian(64, x, 9, 3, 1), gaussian(40, y, 9, 3, 1)]
        elif min(radius(w), radius(h)) // 3 < 1:  # sigma 0 along either axis
            want = [np.zeros(64), np.zeros(40)]
        else:
            want = [gaussian(n, c, int(radius(e)), radius(e) // 3, 0) for n, c, e in ((64, x, w), (40, y, h))]
        np.testing.assert_allclose(row[:-3], np.concatenate(want), rtol=1e-6, atol=1e-9)
    assert got[0, :-3].any()
    assert not got[3, :-3].any()


def test_empty_sets(vectors):
    assert vectors(np.zeros((2, 0, 2)), np.zeros((2, 0), int), size=(4, 5)).shape == (2, 0, 12)
    assert vectors(np.zeros((0, 2)), np.zeros(0, int), size=(0, 0)).shape == (0, 3)


# ---------------------------------------------------------------- Fourier features


def weights(channels=32):
    g = torch.Generator().manual_seed(0)
    shapes = (2, channels // 2), (4, channels), (channels,)
    return dict(
        zip(("matrix", "embeddings", "not_a_point"), (torch.randn(s, generator=g) for s in shapes), strict=True)
    )


def as_numpy(options):
    return {k: v.numpy() if torch.is_tensor(v) else v for k, v in options.items()}


@pytest.fixture
def segment_anything():
    encoder = pytest.importorskip("segment_anything.modeling.prompt_encoder")
    w = weights()
    host = encoder.PromptEncoder(32, (4, 4), (64, 48), 4)
    host.pe_layer.positional_encoding_gaussian_matrix.copy_(w["matrix"])
    for k in range(4):
        host.point_embeddings[k].weight.data[:] = w["embeddings"][k]
    host.not_a_point_embed.weight.data[:] = w["not_a_point"]
    return host, w


@pytest.mark.parametrize("kind", ["points", "boxes", "both"])
@torch.no_grad()
def test_segment_anything(segment_anything, kind):
    host, w = segment_anything
    g = torch.Generator().manual_seed(1)
    points, labels = 60 * torch.rand(3, 5, 2, generator=g), torch.randint(-1, 2, (3, 5), generator=g)
    boxes = 50 * torch.rand(3, 4, generator=g)
    given = {} if kind == "boxes" else {"points": points, "labels": labels}
    want = host((points, labels) if given else None, boxes if kind != "points" else None, None)[0]
    options = w | given | ({} if kind == "points" else {"boxes": boxes[:, None]})
    got = fp.fourier_position_encoding(options.pop("matrix"), size=(64, 48), **options)
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5)
    options = as_numpy(options)
    array = fp.fourier_position_encoding(w["matrix"].numpy(), size=(64, 48), **options)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, want, rtol=0, atol=2e-5)


@torch.no_grad()
def test_transformers():
    """With its fourth label, -10, and its prompts: (B, P, N, 2)."""
    modeling = pytest.importorskip("transformers.models.sam.modeling_sam")
    from transformers import SamConfig, SamPromptEncoderConfig, SamVisionConfig

    torch.manual_seed(0)
    prompt = SamPromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16)
    host = modeling.SamPromptEncoder(
        SamConfig(prompt_encoder_config=prompt, vision_config=SamVisionConfig(num_pos_feats=16))
    )
    w = weights()
    host.shared_embedding.positional_embedding.copy_(w["matrix"])
    for k in range(4):
        host.point_embed[k].weight[:] = w["embeddings"][k]
    host.not_a_point_embed.weight[:] = w["not_a_point"]
    points, labels = 60 * torch.rand(2, 3, 5, 2), torch.tensor([1, 0, -1, -10, 1]).expand(2, 3, 5)
    boxes = 60 * torch.rand(2, 3, 4)
    for given, other in (
        (dict(input_points=points, input_labels=labels, input_boxes=None), {"points": points, "labels": labels}),
        (dict(input_points=None, input_labels=None, input_boxes=boxes), {"boxes": boxes[:, :, None]}),
    ):
        want = host(**given, input_masks=None)[0]
        got = fp.fourier_position_encoding(size=(64, 64), **w, **other)
        torch.testing.assert_close(got.reshape(want.shape), want, rtol=0, atol=2e-5)
    corner = torch.full((2, 3, 5), 2)
    bare = host(input_points=points, input_labels=corner, input_boxes=None, input_masks=None)[0]
    ours = fp.fourier_position_encoding(size=(64, 64), points=points, labels=corner, **w)
    added = (
        ours[..., :5, :] - bare[..., :5, :]
    )  # transformers adds no corner embedding to points; SAM 2 does, and so do we
    torch.testing.assert_close(added, w["embeddings"][2].expand(2, 3, 5, 32), rtol=0, atol=2e-5)


def test_bare_encoding_and_pads():
    w = weights()
    points, boxes = torch.rand(4, 2) * 30, torch.rand(2, 4) * 30
    bare = fp.fourier_position_encoding(w["matrix"], size=(30, 40), points=points)
    angle = 2 * torch.pi * ((2 * (points + 0.5) / torch.tensor([40.0, 30.0]) - 1) @ w["matrix"])
    torch.testing.assert_close(bare, torch.cat([angle.sin(), angle.cos()], -1))
    corners = fp.fourier_position_encoding(w["matrix"], size=(30, 40), boxes=boxes)
    torch.testing.assert_close(
        corners, fp.fourier_position_encoding(w["matrix"], size=(30, 40), points=boxes.view(4, 2))
    )
    none = fp.fourier_position_encoding(**w, size=(30, 40), points=points[:0], labels=torch.zeros(0, dtype=torch.int64))
    assert torch.equal(none, w["not_a_point"][None])  # the pad alone
    labels = torch.tensor([1, 0, -1, -10])
    no_pad = fp.fourier_position_encoding(**w, size=(30, 40), points=points, labels=labels, pad=False)
    assert no_pad.shape == (4, 32)
    assert torch.equal(no_pad[2], w["not_a_point"])
    assert not no_pad[3].any()
    nan = torch.full((1, 2), float("nan"))
    assert torch.equal(
        fp.fourier_position_encoding(**w, size=(3, 4), points=nan, labels=labels[2:3])[0], w["not_a_point"]
    )


def test_gradient():
    w = {k: v.double().requires_grad_() for k, v in weights(4).items()}
    points, boxes = (torch.rand(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def call(matrix, embeddings, not_a_point, points, boxes):
        return fp.fourier_position_encoding(
            matrix, size=(5, 6), points=points, labels=torch.tensor([1, -1, 3]), boxes=boxes.view(1, -1)[:, :4],
            embeddings=embeddings, not_a_point=not_a_point, pad=True,
        )  # fmt: skip

    assert torch.autograd.gradcheck(call, (*w.values(), points, boxes))
