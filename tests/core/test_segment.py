"""``fastprompt segment``, and the function behind it. No test asserts a time."""

import sys
import tracemalloc

import numpy as np
import pytest

from fastprompt import segment as library
from fastprompt.__main__ import main, parser
from fastprompt.cli import segment as command
from fastprompt.segment import prompt_seeds, segment

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A bright 20 x 12 rectangle on a dark ground, in a file of the current directory."""
    monkeypatch.chdir(tmp_path)
    pixels = np.full((40, 60, 3), 30, np.uint8)
    pixels[10:22, 20:40] = (200, 180, 40)
    Image.fromarray(pixels).save("photo.png")
    return pixels


def rectangle():
    mask = np.zeros((40, 60), bool)
    mask[10:22, 20:40] = True
    return mask


def saved(path):
    with Image.open(path) as file:
        return np.asarray(file)


def saved_mask(path="segment-mask.png"):
    pixels = saved(path)
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels == 255


def test_segment_built_in_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["segment"]) == 0
    mask = saved_mask()
    assert mask.shape == (512, 512)
    assert 0.50 < mask.mean() < 0.56  # 53 % is the astronaut
    for x, y, positive in command.ASTRONAUT:
        assert mask[y, x] == positive, (x, y)
    for x, y in ((225, 150), (170, 385), (250, 400), (360, 500), (110, 440), (250, 280)):  # mouth, badge, straps, …
        assert mask[y, x], (x, y)
    for x, y in ((50, 50), (410, 60), (490, 20), (380, 320), (330, 160), (10, 250), (100, 150)):  # flag, shuttle, …
        assert not mask[y, x], (x, y)
    assert saved("segment-overlay.png").shape == (512, 512, 3)
    out = capsys.readouterr().out
    assert out.count("\nclick ") == len(command.ASTRONAUT)
    assert "wrote    segment-mask.png" in out


@pytest.mark.parametrize("extra", [[], ["--no-filter"]], ids=["filter", "no-filter"])
@pytest.mark.parametrize(
    "prompts",
    [
        ["--positive", "30,15", "--negative", "5,5"],
        ["--negative", "5,5", "50,35", "--positive", "30,15", "22,12"],
        ["--positive", "30,15", "--box", "15,5,45,30"],
        ["--scribble", "colour.png"],
        ["--scribble", "grey.png"],
        ["--scribble", "grey.png", "--positive", "38,20", "--box", "2,2,57,37"],
    ],
    ids=["clicks", "negative first", "box", "colour scribble", "grey scribble", "all"],
)
@pytest.mark.usefixtures("photo")
def test_segment_finds_a_rectangle(prompts, extra):
    strokes = np.zeros((40, 60, 4), np.uint8)
    strokes[15, 24:36] = (20, 220, 30, 255)
    strokes[35, 4:50] = (230, 20, 10, 255)
    strokes[15, 2:9] = (20, 220, 30, 60)  # all but transparent: no stroke
    Image.fromarray(strokes).save("colour.png")
    grey = np.zeros((40, 60), np.uint8)
    grey[15, 24:36], grey[35, 4:50], grey[2] = 255, 128, 77
    Image.fromarray(grey).save("grey.png")
    files = ["-o", "mask.png", "--overlay", "overlay.jpg"]
    assert main(["segment", "photo.png", *prompts, *extra, *files]) == 0
    np.testing.assert_array_equal(saved_mask("mask.png"), rectangle())
    assert saved("overlay.jpg").shape == (40, 60, 3)


def test_filter_removes_specks_but_no_prompt(photo):
    noisy = photo.copy()
    noisy[15, 30] = noisy[4, 4] = 255 - noisy[15, 30]
    mask = segment(noisy.transpose(2, 0, 1), [(22, 12), (30, 15)], [(5, 5), (4, 4)])
    assert mask[15, 30]
    assert not mask[4, 4]
    np.testing.assert_array_equal(mask, rectangle())


def test_segment_takes_a_grey_image_and_floats(photo):
    grey = photo[..., 0]
    for image in (grey, grey.astype(np.float64) / 255):
        np.testing.assert_array_equal(segment(image, [(30, 15)], [(5, 5)]), rectangle())


def test_seeds():
    seeds = prompt_seeds((4, 5), [(4, 3)], [(0.9, 0)], box=(0, 0, 4, 3))
    assert np.argwhere(seeds).tolist() == [[0, 3, 4], [1, 0, 0]]
    assert prompt_seeds((4, 5), box=(1, 1, 2, 2))[1].sum() == 4 * 5 - 4


ERRORS = {
    "outside": ("photo.png --positive 60,3 --negative 1,1", "positive point 60,3 is outside the image of 60 x 40"),
    "below zero": ("photo.png --positive 3,3 --negative=-1,1", "negative point -1,1 is outside"),
    "malformed": ("photo.png --positive 3;3", "expected X,Y in whole pixels, got '3;3'"),
    "fraction": ("photo.png --positive 3.5,3", "expected X,Y in whole pixels, got '3.5,3'"),
    "three numbers": ("photo.png --positive 3,3,3", "expected X,Y"),
    "image last": ("--positive 3,3 photo.png", "put IMAGE before the options"),
    "box": ("photo.png --positive 3,3 --box 1,2,3", "expected X0,Y0,X1,Y1"),
    "box reversed": ("photo.png --positive 3,3 --box 9,9,1,1", "X0 <= X1"),
    "box outside": ("photo.png --positive 3,3 --box 0,0,60,3", "inside the image of 60 x 40"),
    "missing file": ("none.png --positive 3,3", "none.png: No such file"),
    "not a picture": ("text.png --positive 3,3", "text.png: not a picture"),
    "contradiction": ("photo.png --positive 3,4 --negative 3,4", "pixel 3,4 is both positive and negative"),
    "click off the box": ("photo.png --positive 3,4 --box 9,9,20,20", "pixel 3,4 is positive, but outside the box"),
    "no positive": ("photo.png --negative 3,4", "no positive prompt: give at least one positive point or scribble"),
    "no negative": ("photo.png --positive 3,4", "no negative prompt: give at least one negative point or scribble, or"),
    "nothing": ("photo.png", "no positive prompt"),
    "lam": ("photo.png --positive 3,4 --negative 9,9 --lam 2", "lam must be between 0 and 1"),
    "theta": ("photo.png --positive 3,4 --negative 30,15 --theta -1", "theta must be between"),
    "scribble size": ("photo.png --scribble small.png", "scribbles must be 60 x 40 pixels like the picture, got 5 x 4"),
    "empty scribble": ("photo.png --scribble blank.png", "blank.png: no strokes"),
    "below zero, first": ("photo.png --positive -5,10 --negative 1,1", "positive point -5,10 is outside the image"),
    "below zero, later": ("photo.png --positive 3,3 -5,10 --negative 1,1", "positive point -5,10 is outside the image"),
    "box below zero": ("photo.png --positive 3,3 --box -1,2,3,4", "box -1,2,3,4 must be X0,Y0,X1,Y1"),
    "minus and fraction": ("photo.png --positive -.5,10", "expected X,Y in whole pixels, got '-.5,10'"),
    "output kind": ("none.png --positive 3,4 --negative 30,15 -o mask.xyz", "mask.xyz: unknown kind"),
    "overlay kind": ("none.png --positive 3,4 --negative 30,15 --overlay seen", "seen: unknown kind"),
    "output folder": (
        "none.png --positive 3,4 --negative 30,15 -o out/mask.png",
        "out/mask.png: there is no folder out",
    ),
    "overlay folder": ("none.png --positive 3,4 --negative 30,15 --overlay a/b/c.png", "there is no folder a/b"),
    "a file as a folder": (
        "photo.png --positive 3,4 --negative 30,15 -o photo.png/m.png",
        "there is no folder photo.png",
    ),
    "a folder as a file": ("photo.png --positive 3,4 --negative 30,15 -o folder.png", "folder.png: is a folder"),
    "one file for both": ("none.png --positive 3,4 --negative 30,15 -o a.png --overlay ./a.png", "must be two files"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.usefixtures("photo")
def test_segment_errors(arguments, message, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    Image.new("L", (5, 4)).save("small.png")
    Image.new("L", (60, 40)).save("blank.png")
    assert main(["segment", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "tif", "webp"])
@pytest.mark.parametrize("role", ["picture", "scribble"])
@pytest.mark.usefixtures("photo")
def test_a_damaged_file_is_named(kind, role, tmp_path, capsys):
    """Cut off anywhere, or (pictures) with a byte changed: an error of one line with its name, or still a picture."""
    Image.open("photo.png").save(f"whole.{kind}")
    whole = (tmp_path / f"whole.{kind}").read_bytes()
    cuts = [whole[: len(whole) * n // 7] for n in range(7)]
    flips = [whole[:n] + bytes([whole[n] ^ 255]) + whole[n + 1 :] for n in range(4, len(whole), len(whole) // 12)]
    damaged = tmp_path / f"damaged.{kind}"
    prompts = ["--positive", "30,15", "--negative", "5,5"]
    refused = 0
    for content in cuts + flips * (role == "picture"):
        damaged.write_bytes(content)
        given = [damaged.name, *prompts] if role == "picture" else ["photo.png", *prompts, "--scribble", damaged.name]
        code, error = main(["segment", *given]), capsys.readouterr().err
        assert (code, error) == (0, "") or (code == 2 and damaged.name in error and error.count("\n") == 1), error
        refused += code == 2
    assert refused >= len(cuts) - 1


@pytest.mark.parametrize(("alpha", "said"), [(None, False), (255, False), (0, True)])
def test_transparency_that_is_dropped_is_said(alpha, said, photo, capsys):
    if alpha is not None:
        opacity = np.full((40, 60), 255, np.uint8)
        opacity[0, 0] = alpha
        Image.fromarray(np.dstack([photo, opacity])).save("photo.png")
    assert main(["segment", "photo.png", "--positive", "30,15", "--negative", "5,5"]) == 0
    assert ("its transparency dropped" in capsys.readouterr().out) == said
    np.testing.assert_array_equal(saved_mask(), rectangle())


@pytest.mark.usefixtures("photo")
def test_every_click_is_computed_once(monkeypatch):
    calls = {"divide": 0, "clean": 0}

    def counted(name, function):
        def call(*arguments, **options):
            calls[name] += 1
            return function(*arguments, **options)

        return call

    for name in calls:
        monkeypatch.setattr(library, name, counted(name, getattr(library, name)))
    assert main(["segment", "photo.png", "--positive", "30,15", "22,12", "--negative", "5,5"]) == 0
    assert calls == {"divide": 3, "clean": 1}


def test_memory_of_a_picture(tmp_path, monkeypatch):
    """NumPy's arrays only; 64-bit numbers for the pixels of an overlay alone would be 72 bytes for each."""
    monkeypatch.chdir(tmp_path)
    size = 1000
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)).save("photo.png")
    main(["segment", "photo.png", "--positive", "30,15", "--negative", "5,5"])  # what is imported is no matter
    tracemalloc.start()
    main(["segment", "photo.png", "--positive", "30,15", "--negative", "5,5"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45 * size**2


def test_few_clicks_are_met_with_a_hint(photo, capsys):
    few = ["segment", "photo.png", "--negative", "5,5", "--positive", "30,15"]
    many = [f"{x},{y}" for x in (24, 30, 36) for y in (12, 18)]
    hints = [main([*few, *more]) or "hint " in capsys.readouterr().out for more in ([], many)]
    assert hints == [True, False]


@pytest.mark.parametrize(("module", "package"), [("PIL", "pillow"), ("skimage", "scikit-image")])
def test_missing_packages(module, package, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    arguments = ["photo.png", "--positive", "3,3"] if module == "PIL" else []
    assert main(["segment", *arguments]) == 2
    assert f"{package} is not installed; run: pip install {package}\n" in capsys.readouterr().err


def test_deep_picture_uses_its_range(tmp_path):
    deep = np.array([[1000, 1000, 2000]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(command.load(str(tmp_path / "deep.png"), "astronaut")[1][0, :, 0], [0, 0, 255])


def test_defaults_are_those_of_the_library():
    options = parser().parse_args(["segment"])
    assert (options.lam, options.theta) == (library.LAM, library.THETA)
