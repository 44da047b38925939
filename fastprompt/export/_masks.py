"""The mask operators in standard ONNX, in onnx's text form."""

from typing import Any


def head(attributes: dict[str, Any]) -> str:
    """A detail of image b' is added to B / B' prompts in order."""
    lines = ""
    for n, x in ((1, "image"), (2, "bent")):
        lines += f"""
  up{n} = ConvTranspose <strides = [2, 2]> ({x}, conv{n}, bias{n})
  images{n} = Shape <start = 0, end = 1> (detail{n})
  rest{n} = Shape <start = 1> (up{n})
  prompts{n} = Shape <start = 0, end = 1> (up{n})
  each{n} = Div (prompts{n}, images{n})
  apart{n} = Concat <axis = 0> (images{n}, each{n}, rest{n})
  split{n} = Reshape <allowzero = 1> (up{n}, apart{n})
  axis{n} = Constant <value_ints = [1]> ()
  added{n} = Unsqueeze (detail{n}, axis{n})
  sum{n} = Add (split{n}, added{n})
  shape{n} = Shape (up{n})
  x{n} = Reshape <allowzero = 1> (sum{n}, shape{n})
"""
        if n == 1:
            lines += """
  last = Transpose <perm = [0, 2, 3, 1]> (x1)
  normal = LayerNormalization <axis = -1, epsilon: float = @eps> (last, norm_weight, norm_bias)
  first = Transpose <perm = [0, 3, 1, 2]> (normal)
""" + gelu("bent", "first")
    return (
        lines
        + gelu("bent2", "x2")
        + """
  sides = Shape <start = 2, end = 4> (bent2)
  count = ReduceProd <keepdims = 1> (sides)
  depth = Shape <start = 0, end = 2> (bent2)
  flat = Concat <axis = 0> (depth, count)
  pixels = Reshape <allowzero = 1> (bent2, flat)
  products = MatMul (vectors, pixels)
  lead = Shape <start = 0, end = 2> (vectors)
  out_shape = Concat <axis = 0> (lead, sides)
  masks = Reshape <allowzero = 1> (products, out_shape)
"""
    )


def gelu(out: str, x: str) -> str:
    """Spelled out: onnx's evaluator has no Gelu inside a function. ONNX Runtime makes one node of it again."""
    return f"""
  {out}_root0 = Constant <value_float = 1.4142135> ()
  {out}_root = CastLike ({out}_root0, {x})
  {out}_one0 = Constant <value_float = 1.0> ()
  {out}_one = CastLike ({out}_one0, {x})
  {out}_half0 = Constant <value_float = 0.5> ()
  {out}_half = CastLike ({out}_half0, {x})
  {out}_at = Div ({x}, {out}_root)
  {out}_erf = Erf ({out}_at)
  {out}_sum = Add ({out}_erf, {out}_one)
  {out}_twice = Mul ({x}, {out}_sum)
  {out} = Mul ({out}_twice, {out}_half)
"""


def resize(attributes: dict[str, Any]) -> str:
    size, frame, crop = (list(attributes.get(k, [])) for k in ("size", "frame", "crop"))
    mode = 'mode = "linear", coordinate_transformation_mode = "half_pixel"'
    lines = """
  one = Constant <value_ints = [1]> ()
  logits4 = Unsqueeze (logits, one)
  images = Shape <start = 0, end = 2> (logits4)
"""
    x = "logits4"
    if frame:
        lines += f"""
  frame = Constant <value_ints = {frame}> ()
  framed_shape = Concat <axis = 0> (images, frame)
  framed = Resize <{mode}> ({x}, , , framed_shape)
  from = Constant <value_ints = [0, 0]> ()
  to = Constant <value_ints = {crop or frame}> ()
  spatial = Constant <value_ints = [2, 3]> ()
  cropped = Slice (framed, from, to, spatial)
"""
        x = "cropped"
    lines += f"""
  size = Constant <value_ints = {size}> ()
  full_shape = Concat <axis = 0> (images, size)
  full4 = Resize <{mode}> ({x}, , , full_shape)
  full = Squeeze (full4, one)
  limit0 = Constant <value_float: float = @threshold> ()
  limit = CastLike (limit0, full)
  offset0 = Constant <value_float: float = @offset> ()
  offset = CastLike (offset0, full)
  inside = Greater (full, limit)
  marks = Cast <to = 7> (inside)
  pair = Constant <value_ints = [1, 2]> ()
  area = ReduceSum <keepdims = 0> (marks, pair)
  high = Add (limit, offset)
  low = Sub (limit, offset)
  above0 = Greater (full, high)
  below0 = Greater (full, low)
  above1 = Cast <to = 1> (above0)
  below1 = Cast <to = 1> (below0)
  above = ReduceSum <keepdims = 0> (above1, pair)
  below = ReduceSum <keepdims = 0> (below1, pair)
  stability = Div (above, below)
  two = Constant <value_ints = [2]> ()
  rows = ReduceMax <keepdims = 0> (marks, two)
  columns = ReduceMax <keepdims = 0> (marks, one)
  y0 = ArgMax <axis = 1, keepdims = 1> (rows)
  x0 = ArgMax <axis = 1, keepdims = 1> (columns)
  y1 = ArgMax <axis = 1, keepdims = 1, select_last_index = 1> (rows)
  x1 = ArgMax <axis = 1, keepdims = 1, select_last_index = 1> (columns)
  any = ReduceMax <keepdims = 1> (rows, one)
  corners = Concat <axis = 1> (x0, y0, x1, y1)
  box = Mul (corners, any)
"""
    if "packed" not in attributes:
        return lines + "  masks = Identity (full)\n"
    if attributes["packed"]:
        return (
            lines
            + f"""
  pads = Constant <value_ints = [0, 0, 0, 0, 0, {-size[1] % 8}]> ()
  padded = Pad (marks, pads)
  eights = Constant <value_ints = [0, 0, -1, 8]> ()
  bits = Reshape (padded, eights)
  powers = Constant <value_ints = [1, 2, 4, 8, 16, 32, 64, 128]> ()
  weighted = Mul (bits, powers)
  last = Constant <value_ints = [3]> ()
  bytes = ReduceSum <keepdims = 0> (weighted, last)
  masks = Cast <to = 2> (bytes)
"""
        )
    return lines + "  masks = Cast <to = 2> (inside)\n"
