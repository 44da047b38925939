"""Cut an object out of a picture with clicks, a box or scribbles.

  fastprompt segment                            a built-in picture with built-in clicks
  fastprompt segment photo.jpg --positive 320,200 --negative 20,20 600,400
  fastprompt segment photo.jpg --positive 320,200 --negative 20,20 --model tiny
  fastprompt segment photo.jpg --positive 320,200 --box 150,80,500,430
  fastprompt segment photo.jpg --scribble strokes.png --overlay seen.png

--model geodesic, the default: a pixel belongs to the object if its geodesic distance to the positive prompts is below
that to the negative ones; no network, no training. It knows edges, no objects: one or two clicks give poor masks, every
piece that looks different needs a prompt of its own, and strokes say most (docs/segment.md).
--model tiny: a network of 0.7 M parameters that comes with this package, was trained on polygons of texture and takes
clicks only; it sees the picture at 96 x 96 pixels, and needs torch (docs/tiny_click.md).
Points are X,Y in pixels from the top left corner.
"""

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

from fastprompt.cli import UserError, needs
from fastprompt.cli.pictures import check_outputs, load, load_scribbles, save

# The astronaut of scikit-image (NASA, public domain), 512 x 512: suit, face, hair and helmet against everything else.
ASTRONAUT = (
    *((200, 330, True), (330, 60, False), (225, 120, True), (230, 40, True), (110, 100, False), (168, 85, True)),
    *((288, 85, True), (275, 45, True), (225, 220, True), (126, 190, True), (400, 450, True), (430, 310, False)),
    *((455, 380, True), (320, 280, True), (340, 200, False), (80, 250, True), (50, 230, False), (90, 205, False)),
    *((40, 440, True), (13, 395, False), (45, 300, True), (12, 330, False), (40, 350, True), (18, 300, False)),
    *((32, 390, True), (70, 480, True), (8, 480, False)),
)

# Picture of scikit-image and clicks of each model.
BUILT_IN = {"geodesic": ("astronaut", ASTRONAUT), "tiny": ("chelsea", ((170, 112, True),))}
SAYS = {
    "geodesic": "distances to the prompts, no network",
    "tiny": "a small network that sees the picture at 96 x 96 pixels",
}
GEODESIC = {"box": None, "scribble": None, "lam": 0.99, "theta": 0.1, "no_filter": False}  # its own options

FEW = 6  # clicks; below, a photograph's masks are mostly poor

Click = tuple[int, int, bool]  # x, y, positive


class AddClicks(argparse.Action):
    """Both kinds of clicks go into one list, in the order of the command line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        clicks = [(*numbers(value, "X,Y"), option == "--positive") for value in values]
        namespace.clicks = [*(namespace.clicks or []), *clicks]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", nargs="?", metavar="IMAGE", help="any file that pillow reads; left out: a built-in picture")
    add("--positive", nargs="+", action=AddClicks, dest="clicks", metavar="X,Y", help="pixels on the object")
    add("--negative", nargs="+", action=AddClicks, dest="clicks", metavar="X,Y", help="pixels off the object")
    add("--model", choices=tuple(BUILT_IN), default="geodesic", help="what segments (%(default)s)")
    add("--box", metavar="X0,Y0,X1,Y1", help="all outside is off the object; the corners are inside")
    add(
        "--scribble",
        metavar="FILE",
        help="picture of the same size: green strokes are on the object, red ones off it; or grey: 255 on, 128 off",
    )
    add("-o", "--output", default="segment-mask.png", metavar="FILE", help="the mask, 0 or 255 (%(default)s)")
    add("--overlay", default="segment-overlay.png", metavar="FILE", help="picture, mask and prompts (%(default)s)")
    add("--lam", type=float, default=GEODESIC["lam"], help="weight of edges against path length, 0 to 1 (%(default)s)")
    add("--theta", type=float, default=GEODESIC["theta"], help="how far the filter may move the outline (%(default)s)")
    add("--no-filter", action="store_true", help="leave out the geodesic symmetric filter")


def run(options: argparse.Namespace) -> int:
    model = options.model
    if model == "tiny":
        check_tiny(options)
    check_outputs(options.output, options.overlay)
    name, picture = load(options.image, BUILT_IN[model][0])
    clicks = options.clicks or []
    if options.image is None and not (clicks or options.box or options.scribble):
        clicks = list(BUILT_IN[model][1])
    box = None if options.box is None else numbers(options.box, "X0,Y0,X1,Y1")
    scribbles = None if options.scribble is None else load_scribbles(options.scribble, picture.shape[:2])
    prompts: dict[str, Any] = {"scribbles": scribbles, "box": box}
    report_input(name, picture, clicks, prompts)
    print(f"model    {model}: {SAYS[model]}")

    mask = by_network(picture, clicks) if model == "tiny" else by_distance(picture, clicks, prompts, options)
    print(f"object   {int(mask.sum())} pixels, {mask.mean():.1%} of the picture")
    write(picture, mask, clicks, prompts, options)
    return 0


def check_tiny(options: argparse.Namespace) -> None:
    given = [f"--{name.replace('_', '-')}" for name, default in GEODESIC.items() if getattr(options, name) != default]
    if given:
        raise UserError(f"{given[0]} is an option of --model geodesic; the tiny network takes clicks only")
    if importlib.util.find_spec("torch") is None:
        raise needs("torch")


def by_network(picture: Any, clicks: list[Click]) -> Any:
    import numpy as np

    from fastprompt.models import tiny_click
    from fastprompt.segment import prompt_seeds

    prompt_seeds(picture.shape[:2], *by_side(clicks))  # raises what the other model raises
    network = tiny_click()
    points, labels = np.reshape([c[:2] for c in clicks], (-1, 2)), [int(c[2]) for c in clicks]
    spent, mask = milliseconds(network.predict, picture, points, labels)
    print(f"network  {spent:.1f} ms for all clicks")
    return mask


def by_distance(picture: Any, clicks: list[Click], prompts: dict[str, Any], options: argparse.Namespace) -> Any:
    from fastprompt import segment as library

    image = library.normalised(picture.transpose(2, 0, 1))
    seeds = library.checked_seeds(image.shape[1:], *by_side(clicks), **prompts)
    mask = click_by_click(image, clicks, prompts, options.lam)
    if not options.no_filter:
        spent, mask = milliseconds(library.clean, image, mask, seeds, lam=options.lam, theta=options.theta)
        print(f"filter   {spent:.1f} ms, once at the end")
    if len(clicks) < FEW and prompts["scribbles"] is None:
        print("hint     few clicks: this finds the edge between them, not an object; more clicks or strokes say more")
    return mask


def click_by_click(image: Any, clicks: list[Click], prompts: dict[str, Any], lam: float) -> Any:
    """The mask of all prompts. Clicks are added one after the other, as a user would; prints what each one costs."""
    from fastprompt import segment as library

    def divided(count: int) -> tuple[float, Any]:
        seeds = library.prompt_seeds(image.shape[1:], *by_side(clicks[:count]), **prompts)
        return milliseconds(library.divide, image, seeds, lam=lam)

    if not clicks:
        spent, mask = divided(0)
        print(f"distance {spent:.1f} ms")
    total = 0.0
    for n, (x, y, positive) in enumerate(clicks, 1):
        spent, mask = divided(n)
        total += spent
        print(f"click {n:>3}  {'+' if positive else '-'} {f'{x},{y}':<9}  {spent:7.1f} ms")
    if clicks:
        print(f"clicks   {total:.1f} ms, for each the distances to all prompts anew")
    return mask


def numbers(text: str, form: str) -> tuple[int, ...]:
    """``"3,4"`` as (3, 4)."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(form.split(",")):
        hint = "; put IMAGE before the options" if Path(text).suffix and "," not in text else ""
        raise UserError(f"expected {form} in whole pixels, got {text.strip()!r}{hint}")
    return values


def by_side(clicks: list[Click]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    sides = ([(x, y) for x, y, positive in clicks if positive == side] for side in (True, False))
    return next(sides), next(sides)


def report_input(name: str, picture: Any, clicks: list[Click], prompts: dict[str, Any]) -> None:
    positive, negative = by_side(clicks)
    parts = [f"{len(positive)} positive and {len(negative)} negative clicks"] if clicks else []
    parts += [f"a box {','.join(map(str, prompts['box']))}"] if prompts["box"] else []
    if prompts["scribbles"] is not None:
        parts.append("scribbles of {} + {} pixels".format(*prompts["scribbles"].sum(axis=(1, 2))))
    print(f"picture  {name}, {picture.shape[1]} x {picture.shape[0]}")
    print(f"prompts  {', '.join(parts) or 'none'}")


def milliseconds(call: Any, *arguments: Any, **options: Any) -> tuple[float, Any]:
    """The time of one call, and the result."""
    begin = time.perf_counter()
    result = call(*arguments, **options)
    return 1e3 * (time.perf_counter() - begin), result


def write(picture: Any, mask: Any, clicks: list[Click], prompts: dict[str, Any], options: argparse.Namespace) -> None:
    import numpy as np
    from PIL import Image

    from fastprompt.cli.draw import overlay

    save(
        {
            options.output: Image.fromarray(mask.astype(np.uint8) * 255),
            options.overlay: overlay(picture, mask, clicks, **prompts),
        }
    )
