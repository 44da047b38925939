"""The operators of SAM's mask decoder: shapes, kernels and formulas.

The two-way transformer is there three times: as two operators, what an image needs once and what every prompt needs; in
a low-rank form (``csrc/decoder/low_rank.h``), which never writes the image tokens and hands what it keeps to the mask
head; and for a GPU. ``two_way_transformer`` and ``mask_decoder`` are what an exported file has as one node. But for the
mask head, none has a gradient; what is prepared has a format of its own, and so no reference.
"""

from typing import Any

from fastprompt._later import Later
from fastprompt.ops._arrays import dtype_name
from fastprompt.ops._operator import Operator
from fastprompt.ops.decoder import call, flops
from fastprompt.ops.decoder.layouts import Sizes, whole_tiles

formulas, reference = Later("fastprompt.ops.decoder.formulas"), Later("fastprompt.reference.decoder")


def of_masks(image: Any, vectors: Any, *rest: Any) -> Any:
    batch, _, height, width = image.shape
    return (batch, vectors.shape[1], 4 * height, 4 * width), image.dtype


mask_head = Operator(
    "mask_head(Tensor image, Tensor vectors, Tensor conv1, Tensor bias1, Tensor norm_weight, Tensor norm_bias, "
    "Tensor conv2, Tensor bias2, Tensor? detail1, Tensor? detail2, float eps) -> Tensor",
    axes="conv1 float: channels middle 2 2, bias1 float: middle, norm_weight float: middle, norm_bias float: middle, "
    "conv2 float: middle depth 2 2, bias2 float: depth, image float: _ channels y x, "
    "detail1 float: images middle 2*y 2*x, detail2 float: images depth 4*y 4*x, "
    "vectors float: prompts%images _ depth, image float: prompts channels y x",
    out=of_masks,
    call=call.mask_head,
    reference=lambda *x: reference.mask_head(*x[:2], x[2:8], x[10], None if x[8] is None else x[8:10]),
    formula=formulas.mask_head,
    gpu=formulas.mask_head_gpu,
    gradient="formula",
)


def mlps(name: str, count: int, layers: int) -> str:
    """Weights of so many arrays; an MLP has two for each layer, from ``channels`` on."""
    if layers < 1 or count % (2 * layers) or (count == 0 and name == "mlps"):
        raise ValueError(f"{name} must hold two arrays for each of {layers} layers of an MLP, got {count}")
    parts = []
    for k in range(count // 2):
        depth = "channels" if k % layers == 0 else f"h{k - 1}"
        parts += [f"h{k} {depth}", f"h{k}"]
    return f", {name} float: {' / '.join(parts)}" if parts else ""


def of_token_mlps(tokens: Any, rows: Any, weights: Any, layers: int) -> str:
    if len(weights) != 2 * layers * len(rows):
        raise ValueError(f"weights must hold {2 * layers} arrays for each of {len(rows)} rows, got {len(weights)}")
    if tokens.ndim == 3 and not all(0 <= row < tokens.shape[1] for row in rows):
        raise ValueError(f"rows must be rows of the {tokens.shape[1]} tokens, got {list(rows)}")
    return "tokens float: _ _ channels" + mlps("weights", len(weights), layers)


def of_mlps(tokens: Any, rows: Any, weights: Any, layers: int) -> Any:
    return [((tokens.shape[0], w.shape[0]), tokens.dtype) for w in weights[2 * layers - 2 :: 2 * layers]]


def takes_mlps(tokens: Any, rows: Any, weights: Any, layers: int) -> bool:
    """float32, and inputs of whole vectors."""
    kind = tokens.dtype
    same = dtype_name(tokens) == "float32" and all(w.dtype == kind for w in weights)
    return same and all(w.shape[1] % 16 == 0 for w in weights[::2])


token_mlps = Operator(
    "token_mlps(Tensor tokens, int[] rows, Tensor[] weights, int layers) -> Tensor[]",
    axes=of_token_mlps,
    out=of_mlps,
    call=call.token_mlps,
    takes=takes_mlps,
    reference=reference.token_mlps,
    formula=formulas.token_mlps,
    gpu=formulas.token_mlps_gpu,
)

# ---------------------------------------------------------------- the two-way transformer


TO_INNER, FROM_INNER = ["inner channels", "inner"], ["channels inner", "channels"]
NORM, OWN = ["channels", "channels"], ["channels channels", "channels"]
LAYER = [*OWN * 4, *NORM, *TO_INNER * 3, *FROM_INNER, *NORM, "mlp channels", "mlp", "channels mlp", "channels", *NORM]
LAYER += [*TO_INNER * 3, *FROM_INNER, *NORM]
FINAL = [*TO_INNER * 3, *FROM_INNER, *NORM]
IMAGE = "image: _ channels y x, position: 1 channels y x, "


def layers(heads: int, width: int, depth: int, mlp: int | str = "mlp") -> str:
    """Weights of the transformer, as ``TwoWayWeights.all``; ``inner`` and ``mlp`` are as wide as the call says."""
    for name, n, most in (("heads", heads, 4096), ("width", width, 4096), ("depth", depth, 1024)):
        if not 0 < n <= most:
            raise ValueError(f"{name} must be between 1 and {most}, got {n}")
    text = " / ".join([*LAYER * depth, *FINAL])
    return ", weights: " + text.replace("inner", str(heads * width)).replace("mlp", str(mlp))


def low_rank_layers(sizes: Any, mlp: int | str = "mlp") -> str:
    """The same, and the convolution and the sizes themselves, for the low-rank form."""
    s = of_sizes(sizes)
    return f", up: channels {s.up // 4} 2 2" + layers(s.heads, s.width, s.depth, mlp)


def of_sizes(sizes: Any) -> Sizes:
    if len(sizes) != len(Sizes._fields):
        raise ValueError(f"sizes must be {len(Sizes._fields)} numbers, got {list(sizes)}")
    return Sizes(*sizes).checked()


def of_image(image: Any, position: Any, weights: Any) -> Any:
    images, channels, height, width = image.shape
    return (images * whole_tiles(height * width) * (2 * channels + 3 * weights[0].shape[0]),), "float32"


def of_tokens(prompt: Any, prepared: Any, weights: Any, images: int, pixels: int, *rest: Any) -> Any:
    return [(prompt.shape, "float32"), ((prompt.shape[0], prompt.shape[2], pixels), "float32")]


def of_both(image: Any, position: Any, prompt: Any, *rest: Any) -> Any:
    return [(prompt.shape, "float32"), ((prompt.shape[0], *image.shape[1:]), "float32")]


two_way_prepare = Operator(
    "two_way_prepare(Tensor image, Tensor position, Tensor[] weights) -> Tensor",
    axes=IMAGE + "weights: " + " / ".join(TO_INNER * 3),
    out=of_image,
    call=call.two_way_prepare,
    flops=lambda image, position, weights: flops.of_image(image, weights[0].shape[0]),
)
two_way = Operator(
    "two_way(Tensor prompt, Tensor prepared, Tensor[] weights, int images, int pixels, int heads, int width, int mlp, "
    "int depth, float[] eps) -> (Tensor, Tensor)",
    axes=lambda prompt, prepared, weights, images, pixels, heads, width, mlp, depth, eps: (
        f"prompt: _%{images} _ channels, prepared: _, eps: 2" + layers(heads, width, depth, mlp)
    ),
    out=of_tokens,
    call=call.two_way,
    flops=flops.two_way,
)
two_way_transformer = Operator(
    "two_way_transformer(Tensor image, Tensor position, Tensor prompt, Tensor[] weights, int heads, int width, "
    "int depth, float[] eps) -> (Tensor, Tensor)",
    axes=lambda image, position, prompt, weights, heads, width, depth, eps: (
        IMAGE + "prompt: _ _ channels, eps: 2" + layers(heads, width, depth)
    ),
    out=of_both,
    call=call.two_way_transformer,
    flops=flops.two_way_transformer,
)
two_way_gpu = Operator(
    "two_way_gpu(Tensor prompt, Tensor image, Tensor position, Tensor keys, Tensor values, Tensor matrices, "
    "Tensor vectors, int heads, int width, int mlp, int depth, float[] eps) -> (Tensor, Tensor)",
    axes="prompt float: _ _ channels, image float: _ channels _ _",
    out=lambda prompt, image, *rest: [
        (prompt.shape, prompt.dtype),
        ((prompt.shape[0], *image.shape[1:]), image.dtype),
    ],
    formula=formulas.two_way,
    gpu=formulas.two_way_gpu,
)

# ---------------------------------------------------------------- its low-rank form


def of_low_rank_image(image: Any, position: Any, weights: Any, up: Any, sizes: Any, eps: Any) -> Any:
    images, _, height, width = image.shape
    s = of_sizes(sizes)
    return (images * whole_tiles(height * width) * s.prepared_rows(),), "bfloat16" if s.half else "float32"


def of_low_rank(
    prompt: Any, prepared: Any, weights: Any, up: Any, images: int, pixels: int, mlp: int, sizes: Any, eps: Any
) -> Any:
    state = of_sizes(sizes).state(prompt.shape[1], pixels)
    return [(prompt.shape, "float32"), ((prompt.shape[0], state), "float32")]


def of_prepared(images: int, pixels: int, sizes: Any) -> str:
    s = of_sizes(sizes)
    count = max(0, images) * whole_tiles(max(0, pixels)) * s.prepared_rows()
    return f"prepared {'bfloat16' if s.half else 'float32'}: {count}"


def of_kept(shape: Any, sizes: Any) -> str:
    """What ``low_rank_masks`` is given, for images, tokens, height and width."""
    s, known = of_sizes(sizes), len(shape) == 4 and min(shape) >= 0
    images, tokens, height, width = shape if known else (0, 0, 0, 0)
    middle = s.up // 4
    return (
        f"shape: 4, low_rank: prompts {s.state(tokens, height * width)}, vectors: prompts%{images} _ depth, "
        f"{of_prepared(images, height * width, sizes)}, "
        f"weights: channels {middle} 2 2 / {middle} / {middle} / {middle} / {middle} depth 2 2 / depth, "
        f"detail1: {images} {middle} {2 * height} {2 * width}, detail2: {images} depth {4 * height} {4 * width}"
    )


def of_low_rank_masks(
    low_rank: Any, prepared: Any, vectors: Any, weights: Any, detail1: Any, detail2: Any, shape: Any, *rest: Any
) -> Any:
    _, _, height, width = shape
    return (vectors.shape[0], vectors.shape[1], 4 * height, 4 * width), "float32"


low_rank_prepare = Operator(
    "low_rank_prepare(Tensor image, Tensor position, Tensor[] weights, Tensor up, int[] sizes, float[] eps) -> Tensor",
    axes=lambda image, position, weights, up, sizes, eps: IMAGE + "eps: 2" + low_rank_layers(sizes),
    out=of_low_rank_image,
    call=call.low_rank_prepare,
    flops=flops.low_rank_prepare,
)
low_rank = Operator(
    "low_rank(Tensor prompt, Tensor prepared, Tensor[] weights, Tensor up, int images, int pixels, int mlp, "
    "int[] sizes, float[] eps) -> (Tensor, Tensor)",
    axes=lambda prompt, prepared, weights, up, images, pixels, mlp, sizes, eps: (
        f"prompt: _%{images} _ channels, {of_prepared(images, pixels, sizes)}, eps: 2" + low_rank_layers(sizes, mlp)
    ),
    out=of_low_rank,
    call=call.low_rank,
    flops=flops.low_rank,
)
low_rank_masks = Operator(
    "low_rank_masks(Tensor low_rank, Tensor prepared, Tensor vectors, Tensor[] weights, Tensor? detail1, "
    "Tensor? detail2, int[] shape, int[] sizes, float eps) -> Tensor",
    axes=lambda low_rank, prepared, vectors, weights, detail1, detail2, shape, sizes, eps: of_kept(shape, sizes),
    out=of_low_rank_masks,
    call=call.low_rank_masks,
    flops=flops.low_rank_masks,
)

# ---------------------------------------------------------------- all of it


def of_decoder(image: Any, dense: Any, position: Any, prompt: Any, *rest: Any) -> Any:
    mlps, layers = rest[4], rest[9]
    height, width = image.shape[2:]
    shape = (prompt.shape[0], len(mlps) // (2 * layers), 4 * height, 4 * width)
    return [(prompt.shape, "float32"), (shape, "float32")]


mask_decoder = Operator(
    "mask_decoder(Tensor image, Tensor dense, Tensor position, Tensor prompt, Tensor[] weights, Tensor[] head, "
    "Tensor? detail1, Tensor? detail2, Tensor[] mlps, int heads, int width, int depth, int first, int layers, "
    "float[] eps) -> (Tensor, Tensor)",
    axes=lambda image, dense, position, prompt, weights, head, detail1, detail2, mlps_, heads, width, depth, *rest: (
        IMAGE
        + "dense: _ channels 1|y 1|x, prompt: _ _ channels, eps: 3"
        + layers(heads, width, depth)
        + mlps("mlps", len(mlps_), rest[1])
        + ", head: channels middle 2 2 / middle / middle / middle / middle depth 2 2 / depth, "
        "detail1: images middle 2*y 2*x, detail2: images depth 4*y 4*x"
    ),
    out=of_decoder,
    call=call.mask_decoder,
    flops=flops.mask_decoder,
)
