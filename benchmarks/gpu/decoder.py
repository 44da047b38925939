"""SAM's mask decoder at 64 x 64 image tokens, random weights: clicks on an image that is known.

Peers: the decoder of transformers as it is called, in a CUDA graph, and compiled with "reduce-overhead", which is a
graph too. float32 with products in TF32 on both sides, and bfloat16.
"""

import copy
from collections.abc import Iterator
from typing import Any

from gpu.case import Case, Run, graph_of

PIXELS, CHANNELS, INNER, HEADS, MLP, LAYERS, OUTPUT_TOKENS = 4096, 256, 128, 8, 2048, 2, 5


def arguments(model: Any, prompts: int, dtype: Any) -> dict[str, Any]:
    import torch

    points = torch.rand(1, prompts, 1, 2, device="cuda") * 1024
    labels = torch.ones(1, prompts, 1, dtype=torch.int, device="cuda")
    sparse, dense = model.prompt_encoder(points, labels, None, None)
    return {
        "image_embeddings": torch.randn(1, CHANNELS, 64, 64, device="cuda", dtype=dtype),
        "image_positional_embeddings": model.get_image_wide_positional_embeddings(),
        "sparse_prompt_embeddings": sparse,
        "dense_prompt_embeddings": dense,
        "multimask_output": True,
    }


def make(prompts: int, name: str) -> tuple[Run, dict[str, Run], Any]:
    import torch
    import transformers

    import fastprompt as fp

    torch.manual_seed(0)
    dtype = getattr(torch, name)
    torch.set_float32_matmul_precision("high")
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32}
    model = transformers.SamModel(transformers.SamConfig(vision_config=vision)).eval().to("cuda", dtype)
    with torch.no_grad():
        given = arguments(model, prompts, dtype)
    host, ours = model.mask_decoder, fp.accelerate(copy.deepcopy(model.mask_decoder))
    compiled = torch.compile(copy.deepcopy(host), mode="reduce-overhead")

    def call(decoder: Any) -> Run:
        def masks() -> Any:
            with torch.no_grad():
                return decoder(**given)[0]

        return masks

    with torch.no_grad():
        exact = {k: x.double() if torch.is_tensor(x) else x for k, x in given.items()}
        expected = copy.deepcopy(host).double()(**exact)[0]
    eager = call(host)
    peers = {"eager": eager, "eager, graph": graph_of(eager), "compiled": call(compiled)}
    return call(ours), peers, expected


def work(prompts: int, size: int) -> tuple[float, float]:
    """Bytes that must be moved: the image, its positions, the masks and the weights once; and products, two operations
    each, with the projections of the image folded into the prompt."""
    tokens = OUTPUT_TOKENS + 2
    rows = tokens * HEADS
    weights = LAYERS * (4 * CHANNELS**2 + 8 * CHANNELS * INNER + 2 * CHANNELS * MLP) + 4 * CHANNELS * INNER
    head = PIXELS * (CHANNELS * 256 + 4 * 64 * 128 + 16 * 32 * 3)
    attention = 2 * LAYERS * 2 * PIXELS * rows * CHANNELS + 2 * PIXELS * tokens * INNER
    moved = size * (2 * PIXELS * CHANNELS + weights + prompts * 3 * 16 * PIXELS)
    return moved, 2.0 * prompts * (attention + head + tokens * weights)


def cases() -> Iterator[Case]:
    for name, size, tolerance in (("float32", 4, 2e-2), ("bfloat16", 2, 6e-2)):
        for prompts in (1, 16, 64):
            moved, flops = work(prompts, size)
            shape = f"{prompts} clicks, {'TF32' if size == 4 else name}"
            yield Case("SAM's mask decoder", shape, lambda p=prompts, n=name: make(p, n), moved, flops, 12, tolerance)
