"""Train the tiny click model: 20 minutes of one core, reproducible by its seed (and the same threads and libraries).

pip install ".[torch,images]"
python examples/train_tiny_click.py --out tiny        # tiny.npz, the weights, and tiny.json, how they came about
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path

import click_data
import numpy as np
import skimage
import torch
from torch.nn import functional as F

import fastprompt as fp
from fastprompt._text import Progress

TEST_SEED, TEST_SAMPLES = 99, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1600, help="batches of 32 (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=int, default=200, metavar="N", help="held-out IoU every N steps (%(default)s)")
    parser.add_argument("--out", default="tiny_click", help="name of the files (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    test, model, progress = held_out(), fp.models.tiny_click(pretrained=False), Progress(options.steps)

    def watch(step: int, loss: float) -> None:
        progress.step(f"loss {loss:.3f}")
        if step % options.report == 0 or step == options.steps:
            progress.close()
            print(f"{step:5} steps, {time.process_time():5.0f} CPU-s: loss {loss:.3f}, IoU {brief(ious(model, test))}")

    pictures = click_data.textures(click_data.TRAIN)
    fit(model, pictures, options.steps, rate=1.2e-3, seed=options.seed, watch=watch)
    progress.close()
    save(model, test, options)


def fit(model, pictures, steps, *, rate, seed, batch=32, clicks=3, keep=None, warmup=100, watch=lambda *_: None):
    """Train in place on fresh samples; ``keep``: bounds of the share of tokens that stay, drawn anew in each step."""
    optimisers = optimisers_of(model, rate)
    schedule = [torch.optim.lr_scheduler.LambdaLR(o, lambda k: pace(k, steps, warmup)) for o in optimisers]
    mean = 0.0
    for step in range(1, steps + 1):
        rng = np.random.default_rng((seed, step))
        samples = click_data.samples(pictures, batch, rng, clicks)
        share = 1.0 if keep is None else rng.uniform(*keep)
        loss = loss_of(model(*samples.inputs, keep=share), samples.target)
        update(model, loss, optimisers)
        for scheduler in schedule:
            scheduler.step()
        mean = loss.item() if step == 1 else 0.98 * mean + 0.02 * loss.item()
        watch(step, mean)


def optimisers_of(model, rate):
    """Muon for the matrices of the blocks, AdamW for the rest; Muon at four times the rate learned fastest."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for name, p in model.named_parameters() if not (name.startswith("blocks") and p.ndim == 2)]
    muon = torch.optim.Muon(matrices, lr=4 * rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(rest, lr=rate, weight_decay=0.02)


def pace(step, steps, warmup):
    """Factor of the learning rate: up in a line, down in half a cosine."""
    return min(1, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def loss_of(logits, target):
    """Cross-entropy + 1 - soft Dice."""
    p = logits.sigmoid()
    dice = (2 * (p * target).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + 1 - dice.mean()


def update(model, loss, optimisers):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()


def held_out(count=TEST_SAMPLES):
    """Samples of textures that the training never sees: one positive click, and in half of them a negative one."""
    return click_data.samples(click_data.textures(click_data.HELD_OUT), count, np.random.default_rng(TEST_SEED))


@torch.no_grad()
def masks_of(model, samples, **pruning):
    parts = [samples.rows(slice(k, k + 50)) for k in range(0, len(samples.image), 50)]
    return torch.cat([model(*part.inputs, boxes=part.boxes, **pruning) > 0 for part in parts])


def ious(model, samples, **pruning):
    """The IoU of every sample."""
    seen, target = masks_of(model, samples, **pruning), samples.target > 0
    return ((seen & target).sum((1, 2, 3)) / (seen | target).sum((1, 2, 3))).numpy()


def add_click(model, samples):
    """One click more on every sample: in the middle of the largest part that is missing or too much."""
    seen, target = masks_of(model, samples), samples.target > 0
    wrong = F.pad(torch.cat([target & ~seen, seen & ~target], 1), (1, 1, 1, 1))
    depth = fp.euclidean_distance_transform(~wrong)[..., 1:-1, 1:-1]
    deepest, place = depth.flatten(1).max(1)
    kind, row, column = (x[:, None] for x in torch.unravel_index(place, depth.shape[1:]))
    points = torch.stack([column, row], 2).float()
    labels = torch.where(deepest[:, None] > 0, 1 - kind, -1)
    return samples._replace(
        points=torch.cat([samples.points, points], 1), labels=torch.cat([samples.labels, labels], 1)
    )


def ious_by_clicks(model, samples, clicks):
    """Mean IoU after 0, 1, .. more clicks."""
    found = [ious(model, samples)]
    for _ in range(clicks):
        samples = add_click(model, samples)
        found.append(ious(model, samples))
    return [round(float(x.mean()), 4) for x in found]


def brief(values):
    """Mean and its standard error."""
    return f"{values.mean():.3f} ± {error(values):.3f}"


def error(values):
    return values.std(ddof=1) / math.sqrt(len(values))


def save(model, test, options):
    """The weights as float16 arrays, and how they came about."""
    arrays = {name: x.half().numpy() for name, x in model.state_dict().items()}
    np.savez(f"{options.out}.npz", **arrays)
    single = ious(model, test)
    model.load_state_dict({name: torch.from_numpy(x).float() for name, x in arrays.items()})
    stored = ious(model, test)
    record = {
        "iou": round(float(stored.mean()), 4),
        "standard_error": round(float(error(stored)), 4),
        "median": round(float(np.median(stored)), 4),
        "iou_of_float32": round(float(single.mean()), 4),
        "iou_after_more_clicks": ious_by_clicks(model, test, 4),
        "samples": len(stored),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": list(click_data.TRAIN),
        "held_out": list(click_data.HELD_OUT),
        **{name: getattr(options, name) for name in ("steps", "seed", "threads")},
        "batch": 32,
        "cpu_seconds": round(time.process_time()),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (fp, np, torch, skimage)},
        },
    }
    Path(f"{options.out}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"held-out IoU {brief(stored)} (n = {len(stored)}); wrote {options.out}.npz and {options.out}.json")


if __name__ == "__main__":
    main()
