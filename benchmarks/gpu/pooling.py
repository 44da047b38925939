"""Masked pooling and cosine maps on a GPU, at the sizes of few-shot segmentation."""

from collections.abc import Iterator

from gpu.case import Case

DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}


def cases() -> Iterator[Case]:
    for channels, side, large in ((256, 60, 473), (512, 60, 473), (256, 64, 1024), (512, 64, 1024)):
        for dtype in ("float32", "float16"):
            yield pool(channels, side, large, dtype)
    for channels in (2048, 512):
        for dtype in ("float32", "bfloat16"):
            yield cosine(channels, dtype)
    for precision in ("highest", "high", "bfloat16"):
        yield prior(2048, 60, 0.15, precision)
    yield prior(2048, 60, 1.0, "bfloat16")


def features_of(channels, side, dtype, seed=0):
    import torch

    g = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(1, channels, side, side, device="cuda", generator=g).to(getattr(torch, dtype))


def mask_of(large, share):
    """A square of this share of the picture, as an object is one piece."""
    import torch

    mask = torch.zeros(1, 1, large, large, dtype=torch.uint8, device="cuda")
    first, width = large // 8, round(share**0.5 * large)
    mask[..., first : first + width, first : first + width] = 1
    return mask if share < 1 else torch.ones_like(mask)


def pool(channels: int, side: int, large: int, dtype: str) -> Case:
    """PANet's prototype, foreground and background."""

    def make():
        import torch

        import fastprompt as fp

        features, mask = features_of(channels, side, dtype), mask_of(large, 0.15)

        def published():
            """Enlarge the features, multiply, sum; again for the background."""
            wide, weight = (
                torch.nn.functional.interpolate(features, (large, large), mode="bilinear"),
                mask.to(features.dtype),
            )
            both = (weight, 1 - weight)
            return torch.cat([(wide * m).sum((2, 3)) / (m.sum((2, 3)) + 1e-5) for m in both])

        rows = matrix(side, large)

        def einsum():
            weight = rows.T @ mask[0, 0].float() @ rows
            both = torch.stack([weight, rows.sum(0)[:, None] * rows.sum(0) - weight])
            total = torch.einsum("mhw,chw->mc", both.to(features.dtype), features[0]).float()
            return total / (both.sum((1, 2)) + 1e-5)[:, None]

        wide = features.double()
        weight = matrix(side, large).double()
        weight = weight.T @ mask[0, 0].double() @ weight
        ones = matrix(side, large).double().sum(0)
        both = torch.stack([weight, ones[:, None] * ones - weight])
        expected = torch.einsum("mhw,chw->mc", both, wide[0]) / (both.sum((1, 2)) + 1e-5)[:, None]

        def ours():
            return torch.cat(fp.masked_average_pool(features, mask, preset="panet", background=True), 1)[0]

        peers = {"published": published, "einsum": einsum, "einsum, compile": torch.compile(einsum)}
        return ours, peers, expected

    size = DTYPES[dtype]
    work = channels * side**2
    shape = f"{channels} x {side}^2, mask {large}^2, {dtype}"
    tolerance = 1e-5 if dtype == "float32" else 2e-3
    return Case("masked_average_pool", shape, make, work * size + large**2 + 8 * channels, 4 * work, 2, tolerance)


def matrix(side: int, large: int):
    """(large, side): a line of the enlarging."""
    import torch

    eye = torch.eye(side, device="cuda")[None, None]
    return torch.nn.functional.interpolate(eye, (large, side), mode="bilinear")[0, 0]


def cosine(channels: int, dtype: str, side: int = 60, count: int = 2) -> Case:
    def make():
        import torch

        import fastprompt as fp

        features = features_of(channels, side, dtype)
        rows = features[0, :, ::5, 0].T[:count].contiguous()

        def published():
            """PANet: a cosine_similarity for each prototype."""
            return torch.stack(
                [20 * torch.nn.functional.cosine_similarity(features, row[None, :, None, None]) for row in rows], 1
            )

        def matmul():
            length = torch.linalg.vector_norm(features.flatten(2), dim=1, keepdim=True)
            unit = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            return (20 * (unit @ features.flatten(2)) / length.clamp(min=1e-8)).view(1, count, side, side)

        wide = features.double().flatten(2)
        expected = 20 * torch.nn.functional.normalize(rows.double(), dim=1) @ torch.nn.functional.normalize(wide, dim=1)
        expected = expected.view(1, count, side, side)
        peers = {"published": published, "matmul": matmul, "matmul, compile": torch.compile(matmul)}
        return lambda: fp.cosine_prototype_map(features, rows), peers, expected

    size = DTYPES[dtype]
    shape = f"{channels} x {side}^2, {count} prototypes, {dtype}"
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    read = size * channels * (side**2 + count)
    return Case("cosine_prototype_map", shape, make, read + size * count * side**2,
                2 * channels * side**2 * (count + 1), 1, tolerance)  # fmt: skip


def prior(channels: int, side: int, share: float, precision: str) -> Case:
    def make():
        import torch

        import fastprompt as fp

        half = precision == "bfloat16"
        torch.set_float32_matmul_precision("highest" if half else precision)
        dtype = "bfloat16" if half else "float32"
        query, support = (features_of(channels, side, dtype, seed).relu() for seed in (0, 1))
        mask = mask_of(side, share)[:, 0].float()

        def published(query=query, support=support):
            q, s = query.flatten(2), (support * mask[:, None].to(query.dtype)).flatten(2)
            lengths = s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None]
            most = ((s.transpose(1, 2) @ q) / (lengths + 1e-7)).amax(1)
            low, high = most.amin(1, keepdim=True), most.amax(1, keepdim=True)
            return ((most - low) / (high - low + 1e-7)).view(1, 1, side, side)

        inside = mask.flatten().nonzero()[:, 0]

        def chosen():
            """Only the pixels of the mask, whose number the host knows beforehand here."""
            q, s = query.flatten(2), support.flatten(2)[:, :, inside]
            unit_q, unit_s = (torch.nn.functional.normalize(x, dim=1) for x in (q, s))
            most = (unit_s.transpose(1, 2) @ unit_q).amax(1).clamp(min=0)
            low, high = most.amin(1, keepdim=True), most.amax(1, keepdim=True)
            return ((most - low) / (high - low + 1e-7)).view(1, 1, side, side)

        expected = published(query.double(), support.double())
        peers = {"published": published, "chosen pixels": chosen, "chosen pixels, compile": torch.compile(chosen)}
        return lambda: fp.prior_mask(query, support, mask), peers, expected

    size = 2 if precision == "bfloat16" else 4
    shape = f"{channels} x {side}^2, {share:.0%} of the support, {precision}"
    flops = 2 * channels * side**4 * share
    tolerance = {"highest": 1e-4, "high": 1e-2, "bfloat16": 3e-2}[precision]
    return Case("prior_mask", shape, make, size * channels * side**2 * (1 + share), flops, 4, tolerance)
