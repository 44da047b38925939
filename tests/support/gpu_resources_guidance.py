"""What gpu_resources.py compiles of the guidance maps, the Euclidean transform and the next click."""

import tempfile
from pathlib import Path

import gpu_resources


def launches(record, arch):
    """The Triton launches of common sizes."""
    import torch
    from fastprompt.kernels import clicks, guidance
    from fastprompt.kernels import guidance_regions as regions

    size, channels = (480, 854), [1, 0]

    def empty(*shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device="meta")

    points, labels = empty(1, 24, 2), empty(1, 24, dtype=torch.int64)

    def maps():
        for code, scale in enumerate((25.0, 1.0, 2 / 260, 0.005)):
            guidance.click_map(points, labels, channels, size, code, [scale])
        guidance.click_map(points, labels, channels, size, guidance.GAUSSIAN, [0.005], stretch=True)
        guidance.box_map(empty(1, 4, 4), size, True, 128.0, 0.0, 255.0)
        encodings = "disk", "distance", "tanh", "Gaussian", "Gaussian with range"
        return *(f"guidance, {e}" for e in encodings), "guidance, stretch", "guidance, boxes"

    def on_regions():
        regions.superpixel_map(empty(1, *size, dtype=torch.int64), points, labels, channels, 255.0)
        regions.proposal_vote_map(empty(1, 50, *size, dtype=torch.uint8), points, labels, channels)
        names = "superpixel sums", "superpixel map", "proposal votes", "proposal map"
        return tuple(f"guidance, {name}" for name in names)

    def next_click():
        masks = empty(1, *size, dtype=torch.uint8)
        clicks.next_click(masks, masks, empty(1, 9, 2, dtype=torch.int32), 0.0, -1)
        return "guidance, next click, columns", "guidance, next click, best"

    return record([guidance], maps) | record([regions], on_regions) | record([clicks], next_click)


def cuda_rows(arch):
    source = gpu_resources.ROOT / "csrc/geodesic/cuda_euclidean.cu"
    options = ["-std=c++17", f"-I{gpu_resources.ROOT / 'csrc'}", "-fmad=false", f"-arch=sm_{arch}"]
    # Threads and dynamic shared memory of 1024 x 1024 pixels, and of 128 planes.
    kinds = {
        "columns": (1024, 4096),
        "rows": (128, 132),
        "depth_kernelILb1": (256, 12960),
        "depth_kernelILb0": (256, 160),
    }
    names = dict(zip(kinds, ("columns", "rows", "depth", "depth of long lines"), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "k.cubin"
        gpu_resources.run("nvcc", "-cubin", *options, "-o", cubin, source)
        for name, usage, code in gpu_resources.kernels_of(cubin):
            kind = next(k for k in kinds if k in name)
            threads, dynamic = kinds[kind]
            yield gpu_resources.row(f"guidance, Euclidean {names[kind]}", arch, threads, usage, dynamic, code)
