"""The door of files: masks as runs, and results of evaluations."""

import json
import tempfile
from pathlib import Path

import numpy as np
from fuzz.outcomes import Find, attempt
from fuzz.values import Draw, change

import fastprompt as fp

RESULTS = [
    {"options": {}},
    {"sample": 0, "iou": [0.25, 0.9375], "clicks": [[1, 1, 1], [2, 2, 1]]},
    {"sample": 1, "iou": [1.0], "clicks": [[3, 3, 1]]},
]
PIECES = ("5.0", "-1", "NaN", "Infinity", "null", '"x"', "[]", "{}", "1e999", "[[1]]", "true", "", ",", "\x00", "é")


def files(seed):
    draw = Draw(f"files {seed}")
    return rle(draw) if draw.random() < 0.7 else results(draw)


def rle(draw):
    mask = draw.bits(draw.randint(1, 5), draw.randint(1, 5))
    code = fp.mask_to_rle(mask)
    if draw.random() < 0.2:
        if not np.array_equal(fp.rle_to_mask(code), mask):
            raise Find("rle_to_mask does not undo mask_to_rle")
        return "right"
    code = change(draw, code)[1]
    found = attempt("rle_to_mask", str(code)[:80], fp.rle_to_mask, code)
    if isinstance(found, Exception):
        return "refused"
    again = fp.mask_to_rle(found)
    if list(again["size"]) != [int(n) for n in code["size"]]:
        raise Find(f"rle_to_mask {code} gives {again}")
    return "right"


def results(draw):
    target = np.zeros((8, 8), bool)
    target[2:6, 2:6] = True
    options = {"max_clicks": 3, "progress": False}
    disks = lambda image, points, labels: target  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        fp.evaluate_clicks(disks, [(None, target)], results=path, **options)
        text = path.read_text().splitlines()[0] + "\n" + "".join(json.dumps(line) + "\n" for line in RESULTS[1:])
        raw_bytes = bytearray(text.encode())
        for _ in range(draw.randint(0, 2)):
            at = draw.randrange(text.index("\n"), len(raw_bytes))
            until = min(at + draw.randint(0, 4), len(raw_bytes))
            raw_bytes[at:until] = draw.choice(PIECES).encode() if draw.random() < 0.7 else bytes([draw.randrange(256)])
        path.write_bytes(bytes(raw_bytes))
        found = attempt(
            "evaluate_clicks",
            repr(bytes(raw_bytes[-90:])),
            fp.evaluate_clicks,
            disks,
            [(None, target)] * 2,
            results=path,
            **options,
        )
    if isinstance(found, Exception):
        return "refused"
    for curve, clicks in zip(found.curves, found.clicks, strict=True):
        if len(curve) != len(clicks) or not 1 <= len(curve) <= 3 or not ((curve >= 0) & (curve <= 1)).all():
            raise Find(f"evaluate_clicks believes its file: {curve} {clicks.tolist()}")
    return "right"
