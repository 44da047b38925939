"""Token scores, pruning and merging beside torch: the strongest form found, and the usual ones.

python benchmarks/bench_pruning.py select merge vit --threads 1   # interleaved, minima, with the results compared
pytest benchmarks/bench_pruning.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

"select" is score (largest cosine to 3 prompts), exact top-k in ascending order, copy of the kept tokens, and restore
into the tokens. "vit" is a whole ViT-S/16 of timm with random weights, tokens pruned after its third block.
"""

import argparse
import functools

import pytest
from harness import heading, interleaved, line

import fastprompt as fp

torch = pytest.importorskip("torch")
F = torch.nn.functional

SELECT = [
    (1024, 384, 0.65), (1024, 384, 0.45), (4096, 384, 0.65), (4096, 768, 0.65), (4096, 768, 0.45), (4096, 1280, 0.45)
]  # fmt: skip
MERGE = [(1024, 384, 64, 512), (4096, 768, 64, 1024), (4096, 768, 64, 2048)]


def spread(index, x):
    return index[..., None].expand(-1, -1, x.shape[2])


# ---------------------------------------------------------------- select: (index, kept, restored)


def fastprompt_select(x, prompts, k):
    scores = fp.token_scores(x, prompts=prompts)
    kept, restore = fp.prune_tokens(x, scores, count=k)
    return restore.indices, kept, restore(kept, inplace=True)


def fastprompt_new(x, prompts, k):
    kept, restore = fp.prune_tokens(x, fp.token_scores(x, prompts=prompts), count=k)
    return restore.indices, kept, restore(kept)


def best_scores(x, prompts):
    return ((x @ F.normalize(prompts, dim=1).T) / torch.linalg.vector_norm(x, dim=1, keepdim=True)).amax(1)


def best_select(x, prompts, k, new=False):
    """One product and one norm; index_select and index_copy_ move rows, gather and scatter_ single numbers."""
    rows = x[0]
    index = best_scores(rows, prompts[0]).topk(k, sorted=False).indices.sort().values
    kept = rows.index_select(0, index)
    full = rows.index_copy(0, index, kept) if new else rows.index_copy_(0, index, kept)
    return index[None], kept[None], full[None]


def cosine(x, prompts):
    return (F.normalize(x, dim=-1) @ F.normalize(prompts, dim=-1).transpose(1, 2)).amax(-1)


def gather_select(x, prompts, k):
    index = cosine(x, prompts).topk(k, sorted=False).indices.sort(1).values
    kept = x.gather(1, spread(index, x))
    return index, kept, x.scatter_(1, spread(index, x), kept)


def argsort_select(x, prompts, k):
    """The usual code of pruning networks."""
    index = cosine(x, prompts).argsort(1, descending=True)[:, :k].sort(1).values
    kept = x.gather(1, spread(index, x))
    return index, kept, x.scatter(1, spread(index, x), kept)


SELECTS = {
    "fastprompt": fastprompt_select,
    "torch index_select": best_select,
    "fastprompt, new result": fastprompt_new,
    "torch index_copy": functools.partial(best_select, new=True),
    "torch topk, gather": gather_select,
    "torch argsort, gather": argsort_select,
}


def select_case(tokens, channels, keep):
    g = torch.Generator().manual_seed(0)
    x, prompts = torch.randn(1, tokens, channels, generator=g), torch.randn(1, 3, channels, generator=g)
    calls = {name: functools.partial(f, x, prompts, int(tokens * keep)) for name, f in SELECTS.items()}
    want = best_select(x, prompts, int(tokens * keep))
    same = {name: all(map(torch.equal, call(), want)) for name, call in calls.items()}
    return calls, {name: "same bits" if s else "OTHER TOKENS" for name, s in same.items()}


# ---------------------------------------------------------------- merge


def torch_merge(x, metric, r):
    """Ties aside; the merged tokens are those of fastprompt in another order."""
    unit = F.normalize(metric[0], dim=1)
    best, partner = (unit[0::2] @ unit[1::2].T).max(1)
    leaving = best.topk(r, sorted=False).indices
    even, odd = x[0, 0::2], x[0, 1::2]
    stays = torch.ones(len(even), dtype=torch.bool)
    stays[leaving] = False
    to = partner.index_select(0, leaving)
    total = torch.ones(len(odd)).index_add_(0, to, torch.ones(r))
    sums = odd.clone().index_add_(0, to, even.index_select(0, leaving))
    return torch.cat([even[stays], sums / total[:, None]])[None]


def merge_case(tokens, channels, width, r):
    g = torch.Generator().manual_seed(0)
    x, metric = torch.randn(1, tokens, channels, generator=g), torch.randn(1, tokens, width, generator=g)
    calls = {
        "fastprompt": lambda: fp.merge_tokens(x, metric, r=r).tokens,
        "torch index_add": lambda: torch_merge(x, metric, r),
    }
    ours, theirs = (y[0][y[0, :, 0].argsort()] for y in (call() for call in calls.values()))
    return calls, {"fastprompt": f"error {float((ours - theirs).abs().max()):.1e}"}


# ---------------------------------------------------------------- a network


@functools.cache
def vit():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", img_size=512, num_classes=0).eval()
    return model, torch.randn(1, 3, 512, 512)


def vit_forward(keep, way, at=3):
    """Scores from three tokens of the image itself. The class token comes first and always stays."""
    model, image = vit()
    x = model.norm_pre(model._pos_embed(model.patch_embed(image)))
    for n, block in enumerate(model.blocks):
        if n == at and way:
            full, prompts, k = x, x[:, 100:103], 1 + int(keep * 1024)
            if way == "fastprompt":
                first = torch.arange(x.shape[1]) == 0
                x, restore = fp.prune_tokens(x, fp.token_scores(x, prompts=prompts), count=k, always_keep=first)
            else:
                index = torch.cat([torch.zeros(1, 1, dtype=torch.int64), 1 + gather_index(x[:, 1:], prompts, k - 1)], 1)
                x = x.gather(1, spread(index, x))
        x = block(x)
    if way == "fastprompt":
        x = restore(x)
    elif way:
        x = full.scatter(1, spread(index, x), x)
    return model.norm(x)


def gather_index(x, prompts, k):
    return cosine(x, prompts).topk(k, sorted=False).indices.sort(1).values


def ideal(keep, at=3, depth=12, width=384, tokens=1024):
    """Of multiplications: patches, projections and MLP 24 n C^2, attention 4 n^2 C."""
    block = lambda n: 24 * n * width**2 + 4 * n**2 * width  # noqa: E731
    patches, whole, part = 2 * tokens * 768 * width, block(tokens + 1), block(1 + int(keep * tokens))
    return (patches + depth * whole) / (patches + at * whole + (depth - at) * part)


def vit_case(keep):
    calls = {way or "all tokens": functools.partial(vit_forward, keep, way) for way in ("", "fastprompt", "gather")}
    ours, theirs = calls["fastprompt"](), calls["gather"]()
    return calls, {"fastprompt": f"error {float((ours - theirs).abs().max()):.1e}, FLOP ideal {ideal(keep):.3f}"}


# ---------------------------------------------------------------- tables

CASES = {
    "select": (select_case, SELECT),
    "merge": (merge_case, MERGE),
    "vit": (vit_case, [(0.65,), (0.45,)]),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("kind", "case"), [(k, c) for k in ("select", "merge") for c in CASES[k][1]], ids=str)
@torch.no_grad()
def test_pruning(benchmark, kind, case, threads):
    torch.set_num_threads(threads)
    calls, notes = CASES[kind][0](*case)
    assert "OTHER" not in notes["fastprompt"]
    benchmark.group = f"{kind} {case}, {threads} threads"
    benchmark(calls["fastprompt"])


@torch.no_grad()
def table(kind, case, threads, rounds):
    torch.set_num_threads(threads)
    make, _ = CASES[kind]
    calls, notes = make(*case)
    # Three in a row: the tokens have just been written, as in a network.
    times = interleaved(calls, rounds, threads, repeat=lambda name, n: 1 if kind == "vit" else 3)
    heading(f"{kind} {case}", threads, rounds, f", torch {torch.__version__}")
    for name, spent in times.items():
        line(name, spent, times["fastprompt"], notes.get(name, ""), digits=3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, help="default 30, 6 of a network")
    options = parser.parse_args()
    for kind in options.kinds:
        for threads in options.threads:
            for case in CASES[kind][1]:
                table(kind, case, threads, options.rounds or (6 if kind == "vit" else 30))
