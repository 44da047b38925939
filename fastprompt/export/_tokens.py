"""Scores, selection and merging of tokens in standard ONNX, in onnx's text form."""

from typing import Any

UNIT = """
  {x}_squares = Mul ({x}, {x})
  {x}_sum = ReduceSum <keepdims = 1> ({x}_squares, minus)
  {x}_root = Sqrt ({x}_sum)
  {x}_least0 = Constant <value_float = 1e-12> ()
  {x}_least = CastLike ({x}_least0, {x})
  {x}_length = Max ({x}_root, {x}_least)
  {x}_unit = Div ({x}, {x}_length)
"""
COSINE = (
    "  minus = Constant <value_ints = [-1]> ()\n"
    + UNIT.format(x="tokens")
    + UNIT.format(x="prompts")
    + """
  turned = Transpose <perm = [0, 2, 1]> (prompts_unit)
  cosines = MatMul (tokens_unit, turned)
  scores = ReduceMax <keepdims = 0> (cosines, minus)
"""
)

# Rows (B, K) of (B, N, C).
ROWS = """
  {out}_axis = Constant <value_ints = [-1]> ()
  {out}_places = Unsqueeze ({index}, {out}_axis)
  {out} = GatherND <batch_dims = 1> ({rows}, {out}_places)
"""


def prune(attributes: dict[str, Any]) -> str:
    """The ``count`` highest, equal ones by the lowest index, in their order; a NaN counts as -inf."""
    return """
  nan = IsNaN (scores)
  low0 = Constant <value_float = -inf> ()
  low = CastLike (low0, scores)
  plain = Where (nan, low, scores)
  high0 = Constant <value_float = inf> ()
  high = CastLike (high0, scores)
  marked = Where (always, high, plain)
  count = Constant <value_int: int = @count> ()
  minus = Constant <value_ints = [-1]> ()
  k = Reshape (count, minus)
  best, chosen = TopK <axis = 1, largest = 1, sorted = 1> (marked, k)
  indices, order = TopK <axis = 1, largest = 0, sorted = 1> (chosen, k)
""" + ROWS.format(out="kept", rows="tokens", index="indices")


# Rows beyond the tensor are 0: a row of zeros behind the last one.
GATHER = """
  count = Shape <start = 1, end = 2> (rows)
  zeros = Constant <value_ints = [0]> ()
  below = Less (index, zeros)
  beyond = GreaterOrEqual (index, count)
  nowhere = Or (below, beyond)
  place = Where (nowhere, count, index)
  pads = Constant <value_ints = [0, 0, 0, 0, 1, 0]> ()
  longer = Pad (rows, pads)
""" + ROWS.format(out="out", rows="longer", index="place")

# base (B, N, C) or one 0; rows (B, K, C) go to index (B, K), those that lie nowhere to a row that is cut off.
SCATTER = """
  batch = Shape <start = 0, end = 1> (rows)
  channels = Shape <start = 2, end = 3> (rows)
  n0 = Constant <value_int: int = @count> ()
  minus = Constant <value_ints = [-1]> ()
  n = Reshape (n0, minus)
  shape = Concat <axis = 0> (batch, n, channels)
  whole = Expand (base, shape)
  pads = Constant <value_ints = [0, 0, 0, 0, 1, 0]> ()
  longer = Pad (whole, pads)
  zeros = Constant <value_ints = [0]> ()
  below = Less (index, zeros)
  beyond = GreaterOrEqual (index, n)
  nowhere = Or (below, beyond)
  place = Where (nowhere, n, index)
  wide = Unsqueeze (place, minus)
  row_shape = Shape (rows)
  places = Expand (wide, row_shape)
  written = ScatterElements <axis = 1> (longer, places, rows)
  one = Constant <value_ints = [1]> ()
  out = Slice (written, zeros, n, one)
"""


def match(attributes: dict[str, Any]) -> str:
    """Even places a and odd places b behind the first ``spared``: the a with the highest cosine to any b are merged."""
    spared = attributes["spared"]
    return f"""
  minus = Constant <value_ints = [-1]> ()
  zeros = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  end = Constant <value_ints = [9223372036854775807]> ()
  s = Constant <value_ints = [{spared + spared % 2}]> ()
  s1 = Constant <value_ints = [{spared | 1}]> ()
  r0 = Constant <value_int: int = @merged> ()
  r = Reshape (r0, minus)
{UNIT.format(x="metric")}
  a = Slice (metric_unit, s, end, one, two)
  b = Slice (metric_unit, s1, end, one, two)
  turned = Transpose <perm = [0, 2, 1]> (b)
  cosines0 = MatMul (a, turned)
  nan = IsNaN (cosines0)
  low0 = Constant <value_float = -inf> ()
  low = CastLike (low0, cosines0)
  cosines = Where (nan, low, cosines0)
  best = ReduceMax <keepdims = 0> (cosines, two)
  nearest = ArgMax <axis = 2, keepdims = 0> (cosines)
  value, chosen = TopK <axis = 1, largest = 1, sorted = 1> (best, r)
  twice = Mul (chosen, two)
  from = Add (twice, s)
  partner0 = GatherElements <axis = 1> (nearest, chosen)
  partner1 = Mul (partner0, two)
  partner = Add (partner1, s1)
  batch = Shape <start = 0, end = 1> (metric)
  count = Shape <start = 1, end = 2> (metric)
  all_shape = Concat <axis = 0> (batch, count)
  n = Squeeze (count)
  first = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  numbers = Range (first, n, step)
  own = Expand (numbers, all_shape)
  stays0 = ConstantOfShape <value = int64[1] {{1}}> (all_shape)
  marks_shape = Shape (from)
  gone = ConstantOfShape <value = int64[1] {{0}}> (marks_shape)
  stays = ScatterElements <axis = 1> (stays0, from, gone)
  axis = Constant <value_int = 1> ()
  upto = CumSum (stays, axis)
  row = Sub (upto, one)
  rest = Sub (count, r)
  order0 = Mul (stays, count)
  order1 = Sub (own, order0)
  sorted0, kept0 = TopK <axis = 1, largest = 0, sorted = 1> (order1, rest)
  kept = Identity (kept0)
  goal = ScatterElements <axis = 1> (own, from, partner)
  target = GatherElements <axis = 1> (row, goal)
"""


# kept (B, M) only gives the size. Sums by scatter, divided by the sums of the sizes.
MERGE = """
  minus = Constant <value_ints = [-1]> ()
  shape = Shape (kept)
  zeros = ConstantOfShape <value = float[1] {0.0}> (shape)
  zero = CastLike (zeros, size)
  total = ScatterElements <axis = 1, reduction = "add"> (zero, target, size)
  channels = Shape <start = 2, end = 3> (tokens)
  wide_shape = Concat <axis = 0> (shape, channels)
  wide0 = ConstantOfShape <value = float[1] {0.0}> (wide_shape)
  wide = CastLike (wide0, tokens)
  weight = Unsqueeze (size, minus)
  weighted = Mul (tokens, weight)
  place0 = Unsqueeze (target, minus)
  all = Shape (tokens)
  place = Expand (place0, all)
  sums = ScatterElements <axis = 1, reduction = "add"> (wide, place, weighted)
  divisor = Unsqueeze (total, minus)
  merged = Div (sums, divisor)
"""

# The same for TensorRT, whose scatter does not add: a matrix (B, M, N) of the sizes at their targets, times the tokens.
MERGE_BY_PRODUCT = """
  minus = Constant <value_ints = [-1]> ()
  one = Constant <value_ints = [1]> ()
  first = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  count = Shape <start = 1, end = 2> (kept)
  last = Squeeze (count)
  numbers = Range (first, last, step)
  row = Unsqueeze (numbers, minus)
  goal = Unsqueeze (target, one)
  hits0 = Equal (goal, row)
  hits = CastLike (hits0, size)
  weight = Unsqueeze (size, one)
  weights = Mul (hits, weight)
  sums = MatMul (weights, tokens)
  total = ReduceSum <keepdims = 1> (weights, minus)
  merged = Div (sums, total)
"""
