"""The launches of the kernels of masks for docs/gpu_resources.md, at SAM's sizes."""

import torch
from fastprompt.kernels import decoder_head as masks
from fastprompt.kernels import decoder_mlps as token_mlps
from fastprompt.kernels import masks as masks_resize

from fastprompt.ops.masks.taps import of_axes


def empty(*shape, dtype):
    return torch.empty(shape, dtype=dtype, device="meta")


def launches(record, arch):
    def calls():
        names = []
        for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
            shapes = [(1, 3, 32), (256, 64, 2, 2), (64,), (64,), (64,), (64, 32, 2, 2), (32,)]
            tokens = empty(1, 4096, 256, dtype=dtype).transpose(1, 2).unflatten(2, (64, 64))
            masks.mask_head(tokens, *(empty(*shape, dtype=dtype) for shape in shapes), None, None, 1e-6)
            widths = [(256, 256, 256, last) for last in (32, 32, 32, 32, 4)]
            weights = [
                empty(*s, dtype=dtype) for w in widths for n in range(3) for s in ((w[n + 1], w[n]), w[n + 1 : n + 2])
            ]
            token_mlps.token_mlps(empty(1, 7, 256, dtype=dtype), [1, 2, 3, 4, 0], weights, 3)
            names += [f"{kernel}, {name}" for kernel in ("mask head", "token MLPs, layer", "token MLPs, last")]
        for output in ("bool", "packed", "float32"):
            axes = [
                tuple(torch.from_numpy(x).to("meta") for x in pair)
                for pair in of_axes((256, 256), (480, 854), (1024, 1024), (576, 1024))
            ]
            masks_resize.resize_masks(empty(3, 256, 256, dtype=torch.float32), *axes, 0.0, output, 1.0)
            names += [f"resize masks, {output}", "resize masks, facts"]
        return names

    return record([masks, masks_resize, token_mlps], calls)
