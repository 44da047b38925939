"""Token scores, pruning, restoring and merging on a GPU."""

from collections.abc import Iterator

from gpu.case import Case

SIZES = ((4096, 768), (1024, 384))
DTYPES = {"float16": 2, "bfloat16": 2, "float32": 4}


def cases() -> Iterator[Case]:
    for count, channels in SIZES:
        for dtype in DTYPES:
            yield scores(count, channels, dtype)
            yield prune(count, channels, dtype, restore=False)
            yield prune(count, channels, dtype, restore=True)
    for count, channels in SIZES:
        yield merge(count, channels)


def tokens_of(count, channels, dtype, seed=0):
    import torch

    g = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(1, count, channels, device="cuda", generator=g).to(getattr(torch, dtype))


def scores(count: int, channels: int, dtype: str, prompts: int = 4) -> Case:
    def make():
        import torch

        import fastprompt as fp

        x, p = tokens_of(count, channels, dtype), tokens_of(prompts, channels, dtype, 1)
        unit = torch.nn.functional.normalize

        def eager(x=x, p=p):
            return (unit(x, dim=-1) @ unit(p, dim=-1).transpose(1, 2)).amax(-1)

        peers = {"normalize, matmul, amax": eager, "compile": torch.compile(eager)}
        return lambda: fp.token_scores(x, prompts=p), peers, eager(x.double(), p.double())

    bytes_ = DTYPES[dtype] * channels * (count + prompts) + 4 * count
    shape = f"{count} x {channels}, {prompts} prompts, {dtype}"
    return Case("token_scores", shape, make, bytes_, 2 * count * channels * (prompts + 1), 1, 1e-5)


def prune(count: int, channels: int, dtype: str, restore: bool, keep: float = 0.5) -> Case:
    """Scores are given: one launch selects and compacts; restoring is another."""

    def make():
        import torch

        import fastprompt as fp

        x, kept = tokens_of(count, channels, dtype), round(keep * count)
        score = tokens_of(count, 1, "float32", 2)[..., 0]

        def ours():
            y, back = fp.prune_tokens(x, score, count=kept)
            return back(y) if restore else y

        def eager():
            index = score.topk(kept, sorted=False).indices.sort().values[..., None].expand(-1, -1, channels)
            y = x.gather(1, index)
            return x.scatter(1, index, y) if restore else y

        return ours, {"topk, sort, gather": eager, "compile": torch.compile(eager)}, None

    row, kept = DTYPES[dtype] * channels, round(keep * count)
    bytes_ = 2 * row * kept + 4 * count + 8 * kept + (row * (2 * count) if restore else 0)
    name = "prune_tokens, restore" if restore else "prune_tokens"
    return Case(name, f"{count} x {channels}, keep {keep}, {dtype}", make, bytes_, 0, 2 if restore else 1)


def merge(count: int, channels: int) -> Case:
    def make():
        import torch

        import fastprompt as fp

        x, r = tokens_of(count, channels, "float32"), count // 4
        unit = torch.nn.functional.normalize

        def eager():
            """Bipartite matching and scatter_reduce, as published; its order of tokens is another."""
            u = unit(x, dim=-1)
            best, partner = (u[:, ::2] @ u[:, 1::2].transpose(1, 2)).max(-1)
            order = best.argsort(-1, descending=True)
            gone, stay = order[:, :r, None], order[:, r:, None]
            into = partner[..., None].gather(1, gone).expand(-1, -1, channels)
            even, odd = x[:, ::2], x[:, 1::2]
            merged = odd.scatter_reduce(1, into, even.gather(1, gone.expand(-1, -1, channels)), "mean")
            return torch.cat([even.gather(1, stay.expand(-1, -1, channels)), merged], 1)

        with fp.backend("reference"):
            expected = fp.merge_tokens(x.cpu(), r=r).tokens
        return (
            lambda: fp.merge_tokens(x, r=r).tokens,
            {"scatter_reduce": eager, "compile": torch.compile(eager)},
            expected,
        )

    bytes_ = 4 * channels * count * 1.75
    return Case(
        "merge_tokens", f"{count} x {channels}, a quarter less", make, bytes_, count**2 / 2 * channels, 16, 1e-4
    )
