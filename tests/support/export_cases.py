"""Every node of domain ``fastprompt`` as a model of one node, with the numbers that torch's operator gives."""

import functools
from typing import NamedTuple

import numpy as np
import onnx
import onnx.inliner
import torch

from fastprompt.export._nodes import DOMAIN, PLUGIN, RECORDS
from fastprompt.export._nodes._translate import registered
from fastprompt.export._onnx.functions import attach

ops = registered()
INF = float("inf")
TYPES = {"float32": 1, "uint8": 2, "int64": 7, "bool": 9, "float16": 10, "float64": 11, "bfloat16": 16}


class Case(NamedTuple):
    inputs: list  # arrays
    attributes: dict
    want: list  # arrays


def draw(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def none(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


def case(operator, inputs, attributes, arguments):
    """``inputs`` of the node, ``arguments`` of torch's operator."""
    with torch.no_grad():
        want = operator(*arguments)
    want = want if isinstance(want, tuple) else (want,)
    return Case([x.numpy() for x in inputs], attributes, [x.numpy() for x in want])


def prompts(projected, to_prompt):
    """Two images for four prompts, with positions; lengths that differ."""
    image, position = draw(2, 32, 5, 7), draw(1, 32, 5, 7, seed=1)
    lengths, width = torch.tensor([3, 1, 2, 3]), 16 if projected else 32
    rows, value = draw(4, 2, 3, width, seed=2, scale=0.3), draw(4, 2, 3, width, seed=3, scale=0.3)
    first, second = draw(32, 32, seed=4, scale=0.2), draw(32, 32, seed=5, scale=0.2)
    if to_prompt:
        bias, out_bias = draw(4, 2, 3, seed=6), draw(32, seed=7)
        weights = (first, second) if projected else ()
        inputs = (image, position, rows, bias, value, *weights, out_bias, lengths)
        given = (
            image,
            position,
            rows,
            bias,
            value,
            *(weights or (None, None)),
            out_bias,
            None,
            None,
            lengths,
            False,
            0.0,
        )
        return case(ops.image_to_prompt, inputs, {}, given)
    bias = torch.where(draw(4, 3, 5, 7, seed=8) > 1, -INF, draw(4, 3, 5, 7, seed=9))
    weights = (first, second) if projected else ()
    inputs = (image, position, rows, *weights, bias, lengths)
    given = (image, position, rows, *(weights or (None, None)), bias, lengths)
    return case(ops.prompt_to_image, inputs, {}, given)


def transformer_weights(c=32, inner=32, mlp=48, depth=2):
    sizes = {"attention": [(inner, c), (inner,), (inner, c), (inner,), (inner, c), (inner,), (c, inner), (c,)]}
    sizes |= {"norm": [(c,), (c,)], "mlp": [(mlp, c), (mlp,), (c, mlp), (c,)]}
    layer = ["attention", "norm", "attention", "norm", "mlp", "norm", "attention", "norm"]
    shapes = [s for part in [*layer * depth, "attention", "norm"] for s in sizes[part]]
    return [draw(*s, seed=n, scale=0.2) for n, s in enumerate(shapes)]


NUMBERS = {"heads": 2, "width": 16, "depth": 2, "channels": 32, "eps": 1e-5, "final_eps": 1e-6}


def transformer():
    image, position, prompt = draw(2, 32, 5, 7, seed=90), draw(1, 32, 5, 7, seed=91), draw(4, 3, 32, seed=92)
    weights = transformer_weights()
    given = (image, position, prompt, weights, 2, 16, 2, [1e-5, 1e-6])
    return case(ops.two_way_transformer, (image, position, prompt, *weights), NUMBERS, given)


def mask_decoder(dense, detailed=False, tokens=5):
    """Two images, four prompts of which rows 1 to 3 are of masks; ``dense`` is of all, of each image or each prompt."""
    image, position, prompt = draw(2, 32, 5, 7, seed=90), draw(1, 32, 5, 7, seed=91), draw(4, tokens, 32, seed=92)
    weights = transformer_weights()
    head = [
        draw(*s, seed=n, scale=0.3) for n, s in enumerate([(32, 16, 2, 2), (16,), (16,), (16,), (16, 8, 2, 2), (8,)])
    ]
    mlps = [draw(*s, seed=n, scale=0.2) for n, s in enumerate([(16, 32), (16,), (8, 16), (8,)] * 3)]
    detail = (draw(2, 16, 10, 14), draw(2, 8, 20, 28)) if detailed else (None, None)
    given = (image, dense, position, prompt, weights, head, *detail, mlps, 2, 16, 2, 1, 2, [1e-5, 1e-6, 1e-6])
    details = detail if detailed else (none(1, 1, 1, 1),) * 2
    numbers = {**NUMBERS, "head_eps": 1e-6, "first": 1, "masks": 3, "layers": 2}
    return case(ops.mask_decoder, (image, dense, position, prompt, *weights, *head, *details, *mlps), numbers, given)


def head(detailed):
    weights = [
        draw(*s, seed=n, scale=0.3) for n, s in enumerate([(32, 16, 2, 2), (16,), (16,), (16,), (16, 8, 2, 2), (8,)])
    ]
    image, vectors = draw(4, 32, 5, 7), draw(4, 3, 8, seed=8)
    detail = (draw(2, 16, 10, 14), draw(2, 8, 20, 28)) if detailed else (None, None)
    inputs = (image, vectors, *weights, *(detail if detailed else (none(1, 1, 1, 1),) * 2))
    return case(ops.mask_head, inputs, {"eps": 1e-6}, (image, vectors, *weights, *detail, 1e-6))


def resize(output):
    numbers = {"size": [21, 34], "frame": [32, 32], "crop": [20, 30], "threshold": 0.1, "offset": 0.5}
    logits = draw(3, 8, 8)
    given = ([21, 34], [32, 32], [20, 30], 0.1, output, 0.5)
    packed = {} if output == "float32" else {"packed": int(output == "packed")}
    return case(ops.resize_masks, (logits,), numbers | packed, (logits, *given))


def relative_position(window):
    size, heads, width = [5, 7], 2, 16
    cell = [window, window] if window else size
    q, k, v = (draw(2, 35, heads, width, seed=n) for n in range(3))
    tables = [draw(2 * n - 1, width, seed=5, scale=0.3) for n in cell]
    pads = (draw(heads, width, seed=7), draw(heads, width, seed=8)) if window else (None, None)
    inputs = (q, k, v, *tables, *(pads if window else (none(1, 1),) * 2))
    given = (q, k, v, *tables, None, *pads, size, [window, window], 0.25)
    found = case(ops.relative_attention, inputs, {"size": size, "window": cell, "scale": 0.25}, given)
    return found._replace(want=found.want[:1])


def grid(size, window, pool):
    heads, width = 2, 16
    cell, tokens = [window, window] if window else size, size[0] * size[1]
    q, k, v = (draw(2, tokens, heads, width, seed=n) for n in range(3))
    pads = (draw(heads, width, seed=7), draw(heads, width, seed=8)) if window else (None, None)
    numbers = {"size": size, "window": cell, "pool": pool, "scale": 0.25}
    inputs = (q, k, v, *(pads if window else (none(1, 1),) * 2))
    return case(ops.grid_attention, inputs, numbers, (q, k, v, *pads, size, [window, window], pool, 0.25))


def distance(
    kind="nonzero", metric="fastgeodis", walls=False, spacing=(1.0, 1.0), limit=INF, v=INF, depth=1, method="exact"
):
    image = (draw(2, 2, depth, 9, 11) * 3).round()
    start = torch.zeros(2, 2, depth, 9, 11)
    start[:, 0, 0, 4, 5] = start[:, 1, 0, 0, 0] = start[:, 1, 0, 8, 1] = 1
    start = start if "seed" in kind else start.to(torch.uint8)
    wall = (draw(2, 1, depth, 9, 11, seed=3) > 1.5).to(torch.uint8) if walls else None
    numbers = {"kind": kind, "metric": metric, "method": method, "iterations": 2, "lam": 0.5, "step_weight": 0.5}
    numbers |= {"spacing": list(spacing), "v": v, "limit": limit}
    inputs = (image, start, none(1, 1, 1, 1, 1, dtype=torch.uint8) if wall is None else wall)
    return case(ops.geodesic_distance, inputs, numbers, (image, start, wall, *numbers.values()))


def transform():
    mask = (draw(2, 1, 4, 9, 7) > 1.8).to(torch.uint8)
    return case(ops.euclidean_distance_transform, (mask,), {"spacing": [2.0, 1.0, 0.5]}, (mask, [2.0, 1.0, 0.5]))


def clicks(code, scales=(4.0,), stretch=False, missing=INF, clip=INF, divisor=1.0):
    """Two images: clicks of both labels, at a border and outside; an empty slot of each kind; none of label 1."""
    nan = float("nan")
    points = torch.tensor([[[3.0, 4.0], [10.0, 0.0], [-1.0, -1.0], [12.0, 20.0]], [[2.0, 2.0], [nan, 1.0], [5.0, 8.0], [-1.0, -1.0]]])  # fmt: skip
    labels = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1]])
    numbers = {"size": [9, 11], "channels": [1, 0], "code": code, "scales": list(scales), "clip": clip}
    numbers |= {"divisor": divisor, "stretch": int(stretch), "missing": missing}
    given = (points, labels, [1, 0], [9, 11], code, list(scales), clip, divisor, stretch, missing)
    return case(ops.click_map, (points, labels), numbers, given)


def boxes(distance):
    nan = float("nan")
    corners = torch.tensor([[[2.0, 1.0, 6.0, 5.0], [9.0, 8.0, 4.0, 3.0]], [[nan, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]]])
    numbers = {"size": [9, 11], "distance": int(distance), "offset": 0.5, "low": -1.0, "high": 4.0}
    given = (corners, [9, 11], distance, 0.5, -1.0, 4.0)
    return case(ops.box_map, (corners,), numbers, given)


def pool(resize, align_corners=False, background=False, threshold=None, dtype=torch.float32):
    features, mask = draw(2, 5, 6, 4), (draw(2, 3, 12, 8, seed=1) > 0.3).to(dtype)
    mask[0, 0] = 0
    numbers = {"resize": resize, "align_corners": int(align_corners), "background": int(background)}
    numbers |= {"hard": int(threshold is not None), "threshold": threshold or 0.0, "eps": 1e-4, "empty": 0.25}
    given = (features, mask, resize, align_corners, background, threshold, 1e-4, 0.25)
    return case(ops.masked_pool, (features, mask), numbers, given)


def similar(kind, sharpest=0.0):
    features, rows = draw(2, 24, 35), draw(1, 11, 24, seed=1)
    numbers = {"scale": 2.0, "eps": 1e-6, "temperature": 10.0, "sharpest": sharpest}
    if kind == 2:
        given = (features, rows, 2.0, 1e-6, 10.0, sharpest)
        return case(ops.similarity_argmax, (features, rows), numbers, given)
    given = (features, rows, 2.0, 1e-6, 10.0, kind, sharpest)
    return case(ops.similarity_map, (features, rows), numbers | {"softmax": int(kind == 1)}, given)


def prior():
    query, support, mask = draw(2, 24, 35), draw(4, 24, 20, seed=1), torch.rand(4, 20) * (draw(4, 20, seed=2) > 0)
    mask[3] = 0
    return case(ops.prior_similarity, (query, support, mask), {"eps": 1e-7}, (query, support, mask, 1e-7))


def read():
    q, k, v = draw(2, 7, 2, 16), draw(2, 9, 2, 16, seed=1), draw(2, 9, 2, 32, seed=2)
    return case(ops.memory_read, (q, k, v), {"scale": 0.25}, (q, k, v, 0.25))


def turned_read(unturned):
    """Two frames of 6 positions, and other keys."""
    q, k, v = draw(2, 7, 2, 16), draw(2, 12 + unturned, 2, 16, seed=1), draw(2, 12 + unturned, 2, 32, seed=2)
    tables = [draw(n, 16, seed=n) for n in (7, 7, 6, 6)]
    inputs = (q, k, v, *tables, torch.tensor([unturned]))
    return case(ops.turned_memory_read, inputs, {"scale": 0.25}, (q, k, v, *tables, unturned, 0.25))


def projected_read(frames, unturned):
    """Frames of 2 x 3 positions."""
    q, (source, value) = draw(2, 7, 32), (draw(2, 6 * frames + unturned, 16, seed=n) for n in (1, 2))
    linear, tables = [draw(32, 16, seed=3, scale=0.2), draw(32, seed=4)], [draw(n, 32, seed=n) for n in (7, 7, 6, 6)]
    inputs = (q, source, value, *linear, *tables, torch.tensor([unturned]))
    given = (q, source, value, linear, *tables, [2, 3], unturned, 0.25)
    return case(ops.projected_memory_read, inputs, {"size": [2, 3], "scale": 0.25}, given)


def prune():
    tokens, scores = draw(2, 12, 16), draw(2, 12, seed=1).round()  # ties
    scores[0, 3] = float("nan")
    always = torch.zeros(2, 12, dtype=torch.bool)
    always[:, 0] = True
    return case(ops.prune_rows, (tokens, scores, always), {"count": 5}, (tokens, scores, always, None, 5, 0.0))


INDEX = torch.tensor([[4, -1, 0], [2, 7, 9]])


def match():
    metric = draw(2, 13, 16)
    return case(ops.match_tokens, (metric,), {"merged": 4, "spared": 1}, (metric, 4, 1))


def merge():
    metric, tokens, size = draw(2, 13, 16), draw(2, 13, 16, seed=1), torch.rand(2, 13) + 0.5
    kept, target = ops.match_tokens(metric, 4, 1)
    return case(ops.merge_rows, (tokens, size, kept, target), {}, (tokens, size, kept, target))


def scatter(with_base):
    base, rows = draw(2, 9, 16), draw(2, 3, 16, seed=1)
    inputs = (base if with_base else none(1, 1, 1), rows, INDEX)
    return case(ops.scatter_rows, inputs, {"count": 9}, (base if with_base else None, rows, INDEX, 9))


CASES = {
    "TwoWayTransformer": transformer,
    "MaskDecoder": lambda: mask_decoder(draw(1, 32, 1, 1, seed=93)),
    "MaskDecoder, details": lambda: mask_decoder(draw(1, 32, 1, 1, seed=93), detailed=True),
    "MaskDecoder, many tokens": lambda: mask_decoder(draw(1, 32, 1, 1, seed=93), tokens=70),
    "MaskDecoder, a mask for each image": lambda: mask_decoder(draw(2, 32, 5, 7, seed=93)),
    "MaskDecoder, a mask for each prompt": lambda: mask_decoder(draw(4, 32, 5, 7, seed=93), detailed=True),
    "MaskHead": lambda: head(False),
    "MaskHead, details": lambda: head(True),
    "ResizeMasks": lambda: resize("uint8"),
    "ResizeMasks, packed": lambda: resize("packed"),
    "ResizeLogits": lambda: resize("float32"),
    "RelativePositionAttention": lambda: relative_position(0),
    "RelativePositionAttention, windows": lambda: relative_position(4),
    "GridAttention": lambda: grid([5, 7], 0, 1),
    "GridAttention, windows": lambda: grid([5, 7], 4, 1),
    "GridAttention, pooled": lambda: grid([6, 10], 4, 2),
    "PromptToImageAttention": lambda: prompts(False, False),
    "PromptToImageProjected": lambda: prompts(True, False),
    "ImageToPromptAttention": lambda: prompts(False, True),
    "ImageToPromptProjected": lambda: prompts(True, True),
    "EuclideanDistanceTransform": transform,
    "GeodesicDistance": distance,
    "GeodesicDistance, signed": lambda: distance("signed_seed", "geodistk", walls=True, v=20.0),
    "GeodesicDistance, volume": lambda: distance("nonzero", "geodistk_fm", spacing=(2.0, 1.0, 1.0), limit=9.0, depth=3),
    "GeodesicDistance, raster": lambda: distance(method="raster", walls=True),
    "GeodesicDistance, raster of a volume": lambda: distance(
        "signed_seed", "geodistk", spacing=(2.0, 1.0, 1.0), v=20.0, depth=3, method="raster"
    ),
    "ClickMap, disks": lambda: clicks(0, (4.0, 9.0)),
    "ClickMap, distances": lambda: clicks(1, clip=6.0, divisor=6.0),
    "ClickMap, tanh": lambda: clicks(2, (0.4,), missing=1e6),
    "ClickMap, gaussians": lambda: clicks(3, (0.1, 0.02), stretch=True),
    "ClickMap, stretched": lambda: clicks(1, clip=20.0, stretch=True, missing=1e6),
    "BoxMap": lambda: boxes(False),
    "BoxMap, distances": lambda: boxes(True),
    "MaskedPool, features enlarged": lambda: pool(0),
    "MaskedPool, corners aligned": lambda: pool(0, align_corners=True, background=True),
    "MaskedPool, mask made small": lambda: pool(1, threshold=0.4, dtype=torch.uint8),
    "MaskedPool, mask averaged": lambda: pool(2, background=True, dtype=torch.uint8),
    "SimilarityMap": lambda: similar(0),
    "SimilarityMap, softmax": lambda: similar(1),
    "SimilarityMap, denoised": lambda: similar(0, 0.9),
    "SimilarityArgmax": lambda: similar(2),
    "PriorSimilarity": prior,
    "MemoryRead": read,
    "TurnedMemoryRead": lambda: turned_read(3),
    "ProjectedMemoryRead": lambda: projected_read(2, 3),
    "ProjectedMemoryRead, pointers alone": lambda: projected_read(0, 4),
    "CosineScores": lambda: case(
        ops.cosine_scores, (draw(2, 12, 16), draw(2, 3, 16, seed=1)), {}, (draw(2, 12, 16), draw(2, 3, 16, seed=1))
    ),
    "PruneTokens": prune,
    "GatherTokens": lambda: case(ops.gather_rows, (draw(2, 9, 16), INDEX), {}, (draw(2, 9, 16), INDEX)),
    "ScatterTokens": lambda: scatter(True),
    "ScatterTokens, zeros": lambda: scatter(False),
    "MatchTokens": match,
    "MergeTokens": merge,
}


@functools.cache
def found(name):
    return CASES[name]()


ALWAYS_FLOAT32 = (
    "ClickMap",
    "BoxMap",
    "ResizeMasks",
    "ResizeLogits",
    "EuclideanDistanceTransform",
    "GeodesicDistance",
)  # their results
CONSTANTS = {
    "MaskHead": range(2, 8),
    "MaskDecoder": [*range(4, 92), *range(94, 106)],
}  # inputs that are weights in every model; OpenVINO has no convolution by others


def feeds(name):
    """The inputs of :func:`model`."""
    constant = CONSTANTS.get(name.partition(",")[0], ())
    return {f"in{n}": x for n, x in enumerate(found(name).inputs) if n not in constant}


def model(name, flavor, dtype=None):
    """Of one node, every axis of every input unknown. ``dtype``: of the floats."""
    c, operator = found(name), name.partition(",")[0]
    info = onnx.helper.make_tensor_value_info
    axes = lambda x, n: [f"d{n}_{k}" for k in range(x.ndim)]  # noqa: E731
    kind = lambda x: TYPES[dtype] if dtype and x.dtype == np.float32 else TYPES[x.dtype.name]  # noqa: E731
    names = [f"in{n}" for n in range(len(c.inputs))], [f"out{n}" for n in range(len(c.want))]
    node = onnx.helper.make_node(operator, *names, domain=DOMAIN, **c.attributes, **PLUGIN)
    for key, value in c.attributes.items():  # an empty list has no type of its own
        if value == []:
            node.attribute.append(onnx.helper.make_attribute(key, value, attr_type=onnx.AttributeProto.INTS))
    given = feeds(name)
    constants = [(n, x) for n, x in zip(names[0], c.inputs, strict=True) if n not in given]
    made_of = lambda x: x.dtype if x.dtype != np.float32 or not dtype else np.dtype(dtype)  # noqa: E731
    out = TYPES.__getitem__ if operator in ALWAYS_FLOAT32 else None
    graph = onnx.helper.make_graph(
        [node],
        operator,
        [info(n, kind(x), axes(x, n)) for n, x in given.items()],
        [info(n, out(x.dtype.name) if out else kind(x), axes(x, n)) for n, x in zip(names[1], c.want, strict=True)],
        [onnx.numpy_helper.from_array(x.astype(made_of(x)), n) for n, x in constants],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid(DOMAIN, 1)]
    made = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if flavor != "plugin":
        attach(made, rename=False)
    return onnx.inliner.inline_local_functions(made) if flavor == "inlined" else made


def compare(name, got):
    """The largest difference from torch's operator: masks and indices must be equal."""
    worst = 0.0
    for g, w in zip(got, found(name).want, strict=True):
        g = np.asarray(g)
        assert g.shape == w.shape, (g.shape, w.shape)
        if w.dtype.kind != "f":
            assert np.array_equal(g, w)
            continue
        same = (g == w) | (np.isnan(g) & np.isnan(w))
        with np.errstate(invalid="ignore"):
            worst = max(worst, float(np.where(same, 0, np.abs(g.astype(np.float64) - w)).max(initial=0)))
    return worst


assert {name.partition(",")[0] for name in CASES} == set(RECORDS), set(RECORDS) ^ {n.partition(",")[0] for n in CASES}
