"""What pruning costs the tiny click model, and what a short fine-tuning with pruned tokens gives back.

pip install ".[torch,images]"
python examples/prune_finetune.py        # six minutes of one core; writes prune_finetune.md

Three networks on held-out textures, tokens pruned before block 1 by their distance to the click and to the box: the one
of this package; the same after a fine-tuning that keeps a random share of the tokens, chosen by the click; and the
control, after as many steps on the same samples with all tokens.
"""

import argparse
import copy
from pathlib import Path

import click_data
import torch
from train_tiny_click import brief, error, fit, held_out, ious

import fastprompt as fp
from fastprompt._text import Progress

KEEPS = (1.0, 0.65, 0.5, 0.35)
SCORES = ("click", "box")
BOUNDS = (0.3, 1.0)  # of the share that is drawn in each step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="of each fine-tuning, batches of 32 (%(default)s)")
    parser.add_argument("--samples", type=int, default=400, help="held-out samples (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the samples to train on (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="prune_finetune.md", help="the tables (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    dense, test = fp.models.tiny_click(), held_out(options.samples)
    pictures, progress = click_data.textures(click_data.TRAIN), Progress(2 * options.steps)
    networks = {"not fine-tuned": dense}
    for name, keep in (("control: fine-tuned with all tokens", None), ("fine-tuned with pruned tokens", BOUNDS)):
        networks[name] = copy.deepcopy(dense)
        fit(
            networks[name],
            pictures,
            options.steps,
            rate=3e-4,
            seed=options.seed,
            warmup=1,
            keep=keep,
            watch=lambda _, loss, name=name: progress.step(f"{name}, loss {loss:.3f}"),
        )
    progress.close()

    found = {
        (name, score, keep): ious(network, test, keep=keep, score=score)
        for name, network in networks.items()
        for score in SCORES
        for keep in KEEPS
    }
    text = tables(found, list(networks))
    text += f"\nn = {options.samples}, {options.steps} steps of 32 samples, seed {options.seed}, ± standard error.\n"
    print(text)
    Path(options.out).write_text(text)
    print(f"wrote {options.out}")


def tables(found, names) -> str:
    """IoU, and paired differences, as markdown."""
    _, control, tuned = names
    header = "| share of tokens | " + " | ".join(f"{keep:g}" for keep in KEEPS) + " |\n" + "| --- " * 5 + "|\n"

    def rows(cell):
        return "".join(
            f"| {name}, {score} | " + " | ".join(cell(name, score, keep) for keep in KEEPS) + " |\n"
            for name in names
            for score in SCORES
        )

    def against(name, other):
        lines = ""
        for score in SCORES:
            cells = [signed(found[name, score, keep] - found[other, score, 1.0]) for keep in KEEPS]
            lines += f"| {name}, {score} | " + " | ".join(cells) + " |\n"
        return lines

    text = "Mean IoU:\n\n" + header + rows(lambda *key: brief(found[key]))
    text += "\nMinus the same network with all tokens, sample by sample:\n\n" + header
    text += "".join(against(name, name) for name in names)
    text += "\nMinus the control with all tokens, the fair comparison:\n\n" + header
    return text + against(tuned, control)


def signed(difference) -> str:
    return f"{difference.mean():+.3f} ± {error(difference):.3f}"


if __name__ == "__main__":
    main()
