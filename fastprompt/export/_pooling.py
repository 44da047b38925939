"""Pooling, similarity and memory reads in standard ONNX, in onnx's text form."""

from typing import Any


def masked_pool(attributes: dict[str, Any]) -> str:
    """As it is published: features enlarged to the mask, or the mask made as small as they."""
    mode = "align_corners" if attributes["align_corners"] else "half_pixel"
    how = f'mode = "linear", coordinate_transformation_mode = "{mode}", axes = [2, 3]'
    lines = """
  mask0 = CastLike (mask, features)
  one0 = Constant <value_float = 1.0> ()
  zero0 = Constant <value_float = 0.0> ()
  one = CastLike (one0, features)
  zero = CastLike (zero0, features)
  minus = Constant <value_ints = [-1]> ()
  flat = Constant <value_ints = [0, 0, -1]> ()
"""
    if attributes["background"]:
        lines += "  rest = Sub (one, mask0)\n  mask1 = Concat <axis = 1> (mask0, rest)\n"
    else:
        lines += "  mask1 = Identity (mask0)\n"
    if attributes["resize"] == 0:
        if attributes["hard"]:
            raise ValueError(
                "MaskedPool with resize='features' and a threshold has no form in standard ONNX: use flavor='plugin'"
            )
        lines += f"""
  wanted = Shape <start = 2> (mask)
  values = Resize <{how}> (features, , , wanted)
  weight0 = Identity (mask1)
"""
    elif attributes["resize"] == 1:
        lines += f"""
  wanted = Shape <start = 2> (features)
  weight0 = Resize <{how}> (mask1, , , wanted)
  values = Identity (features)
"""
    else:
        lines += """
  lead = Shape <start = 0, end = 2> (mask1)
  small_y = Shape <start = 2, end = 3> (features)
  small_x = Shape <start = 3, end = 4> (features)
  large_y = Shape <start = 2, end = 3> (mask)
  large_x = Shape <start = 3, end = 4> (mask)
  each_y = Div (large_y, small_y)
  each_x = Div (large_x, small_x)
  cells_shape = Concat <axis = 0> (lead, small_y, each_y, small_x, each_x)
  cells = Reshape (mask1, cells_shape)
  inner = Constant <value_ints = [3, 5]> ()
  weight0 = ReduceMean <keepdims = 0> (cells, inner)
  values = Identity (features)
"""
    if attributes["hard"]:
        lines += """
  threshold0 = Constant <value_float: float = @threshold> ()
  threshold = CastLike (threshold0, features)
  over = Greater (weight0, threshold)
  weight1 = CastLike (over, features)
"""
    else:
        lines += "  weight1 = Identity (weight0)\n"
    return (
        lines
        + """
  weight = Reshape (weight1, flat)
  rows = Reshape (values, flat)
  turned = Transpose <perm = [0, 2, 1]> (rows)
  total = MatMul (weight, turned)
  area = ReduceSum <keepdims = 1> (weight, minus)
  eps0 = Constant <value_float: float = @eps> ()
  empty0 = Constant <value_float: float = @empty> ()
  eps = CastLike (eps0, features)
  empty = CastLike (empty0, features)
  nothing = Equal (area, zero)
  divisor0 = Add (area, eps)
  divisor = Where (nothing, one, divisor0)
  mean = Div (total, divisor)
  pooled = Where (nothing, empty, mean)
"""
    )


def cosines(attributes: dict[str, Any]) -> str:
    """(B, K, N); rows that are nowhere the sharpest of the softmax get -100."""
    lines = """
  axis1 = Constant <value_ints = [1]> ()
  axis2 = Constant <value_ints = [2]> ()
  eps0 = Constant <value_float: float = @eps> ()
  eps = CastLike (eps0, features)
  temperature0 = Constant <value_float: float = @temperature> ()
  temperature = CastLike (temperature0, features)
  length_rows0 = ReduceL2 <keepdims = 1> (rows, axis2)
  length_rows = Max (length_rows0, eps)
  unit = Div (rows, length_rows)
  products = MatMul (unit, features)
  length0 = ReduceL2 <keepdims = 1> (features, axis1)
  length = Max (length0, eps)
  cosine0 = Div (products, length)
"""
    if attributes["sharpest"] <= 0:
        return lines + "  cosine = Identity (cosine0)\n"
    return (
        lines
        + """
  hot = Mul (cosine0, temperature)
  share0 = Softmax <axis = 1> (hot)
  nan = IsNaN (share0)
  zero0 = Constant <value_float = 0.0> ()
  zero = CastLike (zero0, features)
  share = Where (nan, zero, share0)
  most = ReduceMax <keepdims = 1> (share, axis2)
  sharpest0 = Constant <value_float: float = @sharpest> ()
  sharpest = CastLike (sharpest0, features)
  dull = Less (most, sharpest)
  low0 = Constant <value_float = -100.0> ()
  low = CastLike (low0, features)
  cosine = Where (dull, low, cosine0)
"""
    )


def similarity_map(attributes: dict[str, Any]) -> str:
    if attributes["softmax"]:
        return cosines(attributes) + "  heated = Mul (cosine, temperature)\n  maps = Softmax <axis = 1> (heated)\n"
    scale = "  scale0 = Constant <value_float: float = @scale> ()\n  scale = CastLike (scale0, features)\n"
    return cosines(attributes) + scale + "  maps = Mul (cosine, scale)\n"


def similarity_argmax(attributes: dict[str, Any]) -> str:
    return (
        cosines(attributes)
        + """
  unknown = IsNaN (cosine)
  least0 = Constant <value_float = -inf> ()
  least = CastLike (least0, features)
  known = Where (unknown, least, cosine)
  index = ArgMax <axis = 1, keepdims = 0> (known)
"""
    )


# A support pixel without mask has similarity 0, whatever stands in it.
PRIOR = """
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  images = Shape <start = 0, end = 1> (query)
  pairs = Shape <start = 0, end = 1> (support)
  shots = Div (pairs, images)
  rest = Shape <start = 1> (query)
  apart = Unsqueeze (query, one)
  many = Concat <axis = 0> (images, shots, rest)
  repeated = Expand (apart, many)
  own_shape = Concat <axis = 0> (pairs, rest)
  own = Reshape (repeated, own_shape)
  weight = Unsqueeze (mask, one)
  zero0 = Constant <value_float = 0.0> ()
  zero = CastLike (zero0, query)
  off = Equal (weight, zero)
  weighted = Mul (support, weight)
  masked = Where (off, zero, weighted)
  turned = Transpose <perm = [0, 2, 1]> (masked)
  products = MatMul (turned, own)
  long0 = ReduceL2 <keepdims = 0> (masked, one)
  long = Unsqueeze (long0, two)
  wide = ReduceL2 <keepdims = 1> (own, one)
  lengths = Mul (long, wide)
  eps0 = Constant <value_float: float = @eps> ()
  eps = CastLike (eps0, query)
  divisor = Add (lengths, eps)
  cosine = Div (products, divisor)
  most = ReduceMax <keepdims = 0> (cosine, one)
  low = ReduceMin <keepdims = 1> (most, one)
  high = ReduceMax <keepdims = 1> (most, one)
  up = Sub (most, low)
  range = Sub (high, low)
  least0 = Constant <value_float = 1e-7> ()
  least = CastLike (least0, query)
  divided = Add (range, least)
  level = Div (up, divided)
"""

MEMORY = """
  last = Constant <value_ints = [-1]> ()
  qh = Transpose <perm = [0, 2, 1, 3]> (q)
  kh = Transpose <perm = [0, 2, 3, 1]> (k)
  vh = Transpose <perm = [0, 2, 1, 3]> (v)
  scale0 = Constant <value_float: float = @scale> ()
  scale = CastLike (scale0, q)
  qs = Mul (qh, scale)
  logits = MatMul (qs, kh)
  weight = Softmax <axis = -1> (logits)
  read = MatMul (weight, vh)
  out = Transpose <perm = [0, 2, 1, 3]> (read)
  log_weight = ReduceLogSumExp <keepdims = 0> (logits, last)
"""
