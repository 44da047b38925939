"""resize_masks beside two times ``F.interpolate`` and a threshold, as SAM's post-processing is written.

pytest benchmarks/bench_masks.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min
"""

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

FRAME, CROP, SIZE = (1024, 1024), (683, 1024), (1200, 1800)


def interpolated(logits):
    resize = torch.nn.functional.interpolate
    full = resize(logits, FRAME, mode="bilinear", align_corners=False)[..., : CROP[0], : CROP[1]]
    return resize(full, SIZE, mode="bilinear", align_corners=False) > 0


WAYS = {
    "torch": interpolated,
    "fastprompt bool": lambda x: fp.resize_masks(x, SIZE, frame=FRAME, crop=CROP).masks,
    "fastprompt packed": lambda x: fp.resize_masks(x, SIZE, frame=FRAME, crop=CROP, output="packed").masks,
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("masks", [1, 3, 64])
@pytest.mark.parametrize("way", WAYS)
def test_resize(benchmark, way, masks, threads):
    torch.set_num_threads(threads)
    coarse = torch.randn(masks, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")
    benchmark.group = f"256 x 256 to {SIZE[0]} x {SIZE[1]}, {masks} masks, {threads} threads"
    got = benchmark(WAYS[way], logits)
    if way == "fastprompt bool":
        assert (got != interpolated(logits)).float().mean() < 1e-5  # pixels within rounding of the threshold
