"""The tiny click model: its weights, its pruning, its training, and the command line that uses it."""

import json
import sys

import numpy as np
import pytest

import fastprompt as fp
from fastprompt.__main__ import main
from fastprompt.models import pretrained

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")

import click_data  # noqa: E402
import train_tiny_click as training  # noqa: E402

from fastprompt.nn import tiny_click as network  # noqa: E402

muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="the training needs torch 2.9 for torch.optim.Muon")
WORST = 0.6  # held-out IoU of 32 samples; the whole 400 are in docs/tiny_click.md


@pytest.fixture(scope="module")
def model():
    return fp.models.tiny_click()


@pytest.fixture(scope="module")
def test_set():
    return training.held_out(32)


@pytest.fixture(scope="module")
def record():
    return json.loads(pretrained.WEIGHTS.with_suffix(".json").read_text())


def rectangle(height, width):
    """A picture with a red rectangle, its mask, and a click on it."""
    mask = np.zeros((height, width), bool)
    mask[height // 8 : 2 * height // 3, width // 5 : 3 * width // 5] = True
    picture = np.where(mask[..., None], np.uint8([220, 60, 40]), np.uint8([30, 40, 30]))
    return picture, mask, (2 * width // 5, 2 * height // 5)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# ---------------------------------------------------------------- weights


def test_weights_are_plain_arrays(model, record):
    with np.load(pretrained.WEIGHTS, allow_pickle=False) as arrays:
        assert {x.dtype for x in arrays.values()} == {np.dtype(np.float16)}
        assert sum(x.size for x in arrays.values()) == record["parameters"] == 666_097
        assert arrays.files == list(model.state_dict())
    assert pretrained.WEIGHTS.stat().st_size < 1.5e6
    assert not model.training


def test_iou_on_textures_that_were_never_seen(model, test_set, record):
    assert training.ious(model, test_set).mean() > WORST
    assert record["iou"] > WORST
    assert record["trained_on"] == list(click_data.TRAIN)
    assert record["held_out"] == list(click_data.HELD_OUT)
    torch.manual_seed(0)
    assert training.ious(fp.models.tiny_click(pretrained=False), test_set).mean() < 0.3  # so the bound means something


def test_clicks_matter(model, test_set):
    """The same pictures with the clicks of the next sample: other objects."""
    image, points, labels, _, target = test_set
    other = training.ious(
        model, click_data.Samples(image, points.roll(1, 0), labels.roll(1, 0), test_set.boxes, target)
    )
    assert other.mean() < 0.5 * training.ious(model, test_set).mean()


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_logits(model, test_set, batch):
    logits = model(*test_set.rows(slice(batch)).inputs)
    assert logits.shape == (batch, 1, 96, 96)
    assert logits.dtype == torch.float32


def test_padding_is_no_click(model, test_set):
    image, points, labels, _, _ = test_set.rows(slice(4))
    padded = torch.cat([points, torch.full((4, 3, 2), torch.nan)], 1), torch.cat([labels, torch.full((4, 3), -1)], 1)
    for keep in (1.0, 0.5):
        assert torch.equal(model(image, *padded, keep=keep), model(image, points, labels, keep=keep))


def test_disks():
    points = torch.tensor([[[10.0, 20.0], [0.0, 95.0], [50.5, 50.25], [30.0, 30.0]]])
    labels = torch.tensor([[1, 1, 0, -1]])
    y, x = np.mgrid[:96, :96]
    near = [(x - a) ** 2 + (y - b) ** 2 <= 9 for a, b in points[0].tolist()]
    np.testing.assert_array_equal(network.click_disks(points, labels)[0].numpy(), [near[0] | near[1], near[2]])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (9, 200), (96, 96), (97, 95), (200, 311)], ids=str)
@pytest.mark.parametrize("kind", ["colour", "grey", "view"])
def test_pictures_of_any_size(model, size, kind, rng):
    picture = rng.integers(0, 256, (*size, 3), np.uint8)
    picture = {"colour": picture, "grey": picture[..., 0], "view": picture[::-1, ::-1, ::-1]}[kind]
    mask = model.predict(picture, [(size[1] - 1, size[0] - 1), (0, 0)], [1, 1])
    assert mask.shape == size
    assert mask.dtype == bool


@pytest.mark.parametrize("size", [(60, 100), (96, 96), (250, 160)], ids=str)
def test_finds_a_rectangle(model, size):
    picture, mask, (x, y) = rectangle(*size)
    assert iou(model.predict(picture, [(x, y)], [1]), mask) > 0.8
    turned = model.predict(picture[::-1, ::-1], [(size[1] - 1 - x, size[0] - 1 - y)], [1])
    assert iou(turned, mask[::-1, ::-1]) > 0.8


CALLS = {
    "dtype": ({"image": np.zeros((5, 5))}, TypeError, "image must be uint8, got float64"),
    "axes": ({"image": np.zeros((5, 5, 4), np.uint8)}, ValueError, "image must be .H, W. or .H, W, 3."),
    "empty": ({"image": np.zeros((0, 5, 3), np.uint8)}, ValueError, "not empty, got shape"),
    "points": ({"points": [1, 2]}, ValueError, r"points must be \(P, 2\), got shape \(2,\)"),
    "outside": ({"points": [(5, 1)]}, ValueError, "inside the image of 5 x 4 pixels .*, got 5,1"),
    "nan": ({"points": [(np.nan, 1)]}, ValueError, "points must be inside"),
    "labels": ({"labels": [1, 0]}, ValueError, r"labels must be \(1,\), got shape \(2,\)"),
    "label": ({"labels": [-1]}, ValueError, "labels must be 1 .* or 0 .*, got .-1."),
    "no positive": ({"labels": [0]}, ValueError, "no positive click"),
    "at": ({"at": 6}, ValueError, "at must be an integer from 0 to 5, got 6"),
    "score": ({"score": "edge"}, ValueError, "score must be one of click, box, got 'edge'"),
    "no box": ({"score": "box"}, ValueError, "score 'box' needs a box"),
    "box": ({"box": (3, 3, 1, 1)}, ValueError, "x0 <= x1"),
    "keep": ({"keep": 1.5}, ValueError, "keep must be between 0 and 1"),
}


@pytest.mark.parametrize(("change", "error", "message"), CALLS.values(), ids=CALLS.keys())
def test_errors_of_predict(model, change, error, message):
    call = {"image": np.zeros((4, 5, 3), np.uint8), "points": [(1, 1)], "labels": [1]} | change
    with pytest.raises(error, match=message):
        model.predict(**call)


def test_errors_of_forward(model, test_set):
    image, points, labels, _, _ = test_set.rows(slice(2))
    for call, error, message in (
        ((image[:, :, :64], points, labels), ValueError, r"image must be \(B, 3, 96, 96\)"),
        ((image.byte(), points, labels), TypeError, "image must be floating"),
        ((image, points[:1], labels), ValueError, r"points must be \(2, P, 2\)"),
        ((image, points, labels[:, :1]), ValueError, r"labels must be \(2, 3\)"),
    ):
        with pytest.raises(error, match=message):
            model(*call)


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="tiny_click needs torch; run: pip install"):
        fp.models.tiny_click()


# ---------------------------------------------------------------- pruning


@pytest.mark.parametrize("score", ["click", "box"])
@pytest.mark.parametrize("at", [0, 1, 5])
def test_all_tokens_are_the_same_bits(model, test_set, score, at):
    dense = model(*test_set.rows(slice(8)).inputs)
    for keep in (1.0, 0.999):  # 0.999: 144 of 144 tokens, through the selection and back
        assert torch.equal(
            model(*test_set.rows(slice(8)).inputs, boxes=test_set.boxes[:8], keep=keep, at=at, score=score), dense
        )


def test_blocks_behind_see_fewer_tokens(model, test_set):
    seen = []
    hooks = [block.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for block in model.blocks]
    logits = model(*test_set.inputs, keep=0.35, at=2)
    for hook in hooks:
        hook.remove()
    assert [x.shape[1] for x in seen] == [144, 144, 51, 51, 51, 51]
    assert logits.shape == (32, 1, 96, 96)


def test_priors():
    """Minus the distance of the patch's centre to the nearest positive click, or to the box."""
    points = torch.tensor([[[10.0, 20.0], [80.0, 60.0], [50.0, 50.0]]])
    labels, boxes = torch.tensor([[1, 1, 0]]), torch.tensor([[[20.0, 30.0, 40.0, 70.0]]])
    x, y = np.tile(8 * np.arange(12) + 4, 12), np.repeat(8 * np.arange(12) + 4, 12)
    to_click = np.minimum(np.hypot(x - 10, y - 20), np.hypot(x - 80, y - 60))
    to_box = np.hypot(np.maximum(0, np.maximum(20 - x, x - 40)), np.maximum(0, np.maximum(30 - y, y - 70)))
    for score, distance in (("click", to_click), ("box", to_box)):
        found = network.prior(torch.zeros(1, 144, 96), points, labels, boxes, score)
        np.testing.assert_allclose(found[0].numpy(), -distance, rtol=1e-5, atol=1e-5)


def test_pruning_costs_little_near_the_click_and_much_far_from_it(model, test_set):
    pruned = training.ious(model, test_set, keep=0.65)
    dense = training.ious(model, test_set)
    assert pruned.mean() > dense.mean() - 0.1
    assert (pruned != dense).any()


def test_gradient_flows_through_pruning(test_set):
    torch.manual_seed(0)
    model = fp.models.tiny_click(pretrained=False)
    samples = test_set.rows(slice(4))
    training.loss_of(model(*samples.inputs, keep=0.35), samples.target).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert (model.positions.grad.abs().amax(2) > 0).all()  # those that were pruned too: they reach the head


# ---------------------------------------------------------------- training


def test_samples():
    pictures = click_data.textures(click_data.HELD_OUT[2:])
    one, two = (click_data.samples(pictures, 20, np.random.default_rng(5), clicks=3) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
    assert one.image.shape == (20, 3, 96, 96)
    assert one.target.sum((1, 2, 3)).min() >= click_data.SMALLEST
    for b in range(20):
        for (x, y), label in zip(one.points[b].tolist(), one.labels[b].tolist(), strict=True):
            assert label == -1 or one.target[b, 0, int(y), int(x)] == label
        y, x = one.target[b, 0].nonzero().T
        assert one.boxes[b, 0].tolist() == [x.min(), y.min(), x.max(), y.max()]
    assert (one.labels == 1).sum(1).unique().tolist() == [1, 2, 3]


def test_no_picture_is_in_both_sets():
    assert not set(click_data.TRAIN) & set(click_data.HELD_OUT)
    assert all(name in click_data.TRAIN or name in click_data.HELD_OUT for name in ("astronaut", "chelsea"))


@muon
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_training_lowers_the_loss(test_set, keep):
    torch.manual_seed(0)
    model, samples, losses = fp.models.tiny_click(pretrained=False), test_set.rows(slice(4)), []
    optimisers = training.optimisers_of(model, 1e-3)
    for _ in range(6):
        loss = training.loss_of(model(*samples.inputs, keep=keep), samples.target)
        training.update(model, loss, optimisers)
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05


@muon
def test_fit_is_reproducible(test_set):
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        model = fp.models.tiny_click(pretrained=False)
        training.fit(
            model, click_data.textures(("moon", "page", "brick", "grass")), 2, rate=1e-3, seed=3, batch=2, keep=(0.3, 1)
        )
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# ---------------------------------------------------------------- command line


@pytest.fixture
def photo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture, mask, click = rectangle(80, 120)
    Image.fromarray(picture).save("photo.png")
    return mask, f"{click[0]},{click[1]}"


def test_segment(photo, capsys):
    mask, click = photo
    assert main(["segment", "photo.png", "--model", "tiny", "--positive", click, "--negative", "3,3"]) == 0
    with Image.open("segment-mask.png") as file:
        assert iou(np.asarray(file) > 0, mask) > 0.8
    with Image.open("segment-overlay.png") as file:
        assert file.size == (120, 80)
    assert "\nmodel    tiny: " in capsys.readouterr().out


def test_segment_built_in_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["segment", "--model", "tiny"]) == 0
    assert "picture  built-in picture (skimage.data.chelsea), 451 x 300" in capsys.readouterr().out


ERRORS = {
    "box": ("--positive 50,40 --box 1,1,9,9", "--box is an option of --model geodesic"),
    "theta": ("--positive 50,40 --theta 0.2", "--theta is an option of --model geodesic"),
    "filter": ("--positive 50,40 --no-filter", "--no-filter is an option of --model geodesic"),
    "no positive": ("--negative 50,40", "no positive click"),
    "nothing": ("", "no positive click"),
    "outside": ("--positive 120,3", "positive point 120,3 is outside the image of 120 x 80"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.usefixtures("photo")
def test_segment_errors(arguments, message, capsys):
    assert main(["segment", "photo.png", "--model", "tiny", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("photo")
def test_segment_without_torch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    arguments = ["segment", "photo.png", "--positive", "50,40", "--negative", "3,3"]
    assert main(arguments) == 0
    assert "model    geodesic: distances to the prompts, no network" in capsys.readouterr().out
    assert main([*arguments, "--model", "tiny"]) == 2
    assert "torch is not installed; run: pip install torch\n" in capsys.readouterr().err
