"""The attention operators in standard ONNX, in onnx's text form. The formulas are those of fastprompt.ops."""

from typing import Any

# (B, C, H, W) of every prompt: image b' serves B / B' prompts in order. `rows` are the prompts' tensor.
PER_PROMPT = """
  images = Shape <start = 0, end = 1> (image)
  prompts = Shape <start = 0, end = 1> ({rows})
  each = Div (prompts, images)
  minus = Constant <value_ints = [-1]> ()
  flat = Constant <value_ints = [0, 0, -1]> ()
  channels = Shape <start = 1, end = 2> (image)
  one = Constant <value_ints = [1]> ()
  pixels_of = Reshape (image, flat)
  pixels = Shape <start = 2, end = 3> (pixels_of)
  apart = Unsqueeze (pixels_of, one)
  repeated_shape = Concat <axis = 0> (images, each, channels, pixels)
  repeated = Expand (apart, repeated_shape)
  token_shape = Concat <axis = 0> (prompts, channels, pixels)
  x = Reshape <allowzero = 1> (repeated, token_shape)
"""


def two_way(attributes: dict[str, Any], added: str = "") -> str:
    """SAM's two-way transformer on (B, T, C) and (B', C, H, W); ``added`` makes ``x`` into ``x_added``."""
    heads, depth, width, channels = (attributes[k] for k in ("heads", "depth", "width", "channels"))
    inner, own = width**-0.5, (channels // heads) ** -0.5
    names = iter(weight_names(depth))
    lines = [
        PER_PROMPT.format(rows="prompt") + added,
        f"  keys0 = Transpose <perm = [0, 2, 1]> ({'x_added' if added else 'x'})",
        "  position_of = Reshape (position, flat)",
        "  place = Transpose <perm = [0, 2, 1]> (position_of)",
        # No -1: there may be no prompt.
        f"  split_own = Constant <value_ints = [0, 0, {heads}, {channels // heads}]> ()",
        f"  split_cross = Constant <value_ints = [0, 0, {heads}, {width}]> ()",
        f"  join_own = Constant <value_ints = [0, 0, {channels}]> ()",
        f"  join_cross = Constant <value_ints = [0, 0, {heads * width}]> ()",
        f"  scale_own = Constant <value_float = {own!r}> ()",
        f"  scale_cross = Constant <value_float = {inner!r}> ()",
    ]

    def linear(out: str, x: str) -> None:
        weight, bias = next(names), next(names)
        lines.append(f"  {out}_t = Transpose <perm = [1, 0]> ({weight})")
        lines.append(f"  {out}_m = MatMul ({x}, {out}_t)")
        lines.append(f"  {out} = Add ({out}_m, {bias})")

    def attend(out: str, q: str, k: str, v: str, kind: str) -> None:
        for part, x in (("q", q), ("k", k), ("v", v)):
            linear(f"{out}_{part}", x)
            lines.append(f"  {out}_{part}h = Reshape ({out}_{part}, split_{kind})")
            perm = "[0, 2, 3, 1]" if part == "k" else "[0, 2, 1, 3]"
            lines.append(f"  {out}_{part}p = Transpose <perm = {perm}> ({out}_{part}h)")
        lines.append(f"  {out}_c = CastLike (scale_{kind}, {out}_qp)")
        lines.append(f"  {out}_s = Mul ({out}_qp, {out}_c)")
        lines.append(f"  {out}_l = MatMul ({out}_s, {out}_kp)")
        lines.append(f"  {out}_w = Softmax <axis = -1> ({out}_l)")
        lines.append(f"  {out}_o = MatMul ({out}_w, {out}_vp)")
        lines.append(f"  {out}_ot = Transpose <perm = [0, 2, 1, 3]> ({out}_o)")
        lines.append(f"  {out}_of = Reshape ({out}_ot, join_{kind})")
        linear(out, f"{out}_of")

    def norm(out: str, x: str, eps: str = "eps") -> None:
        weight, bias = next(names), next(names)
        lines.append(f"  {out} = LayerNormalization <axis = -1, epsilon: float = @{eps}> ({x}, {weight}, {bias})")

    def add(out: str, x: str, y: str) -> None:
        lines.append(f"  {out} = Add ({x}, {y})")

    tokens, keys = "prompt", "keys0"
    for n in range(depth):
        p = f"l{n}"
        if n == 0:
            attend(f"{p}a", tokens, tokens, tokens, "own")
            norm(f"{p}n1", f"{p}a")
        else:
            add(f"{p}q", tokens, "prompt")
            attend(f"{p}a", f"{p}q", f"{p}q", tokens, "own")
            add(f"{p}b", tokens, f"{p}a")
            norm(f"{p}n1", f"{p}b")
        add(f"{p}q2", f"{p}n1", "prompt")
        add(f"{p}k2", keys, "place")
        attend(f"{p}c", f"{p}q2", f"{p}k2", keys, "cross")
        add(f"{p}d", f"{p}n1", f"{p}c")
        norm(f"{p}n2", f"{p}d")
        linear(f"{p}m1", f"{p}n2")
        lines.append(f"  {p}r = Relu ({p}m1)")
        linear(f"{p}m2", f"{p}r")
        add(f"{p}e", f"{p}n2", f"{p}m2")
        norm(f"{p}n3", f"{p}e")
        add(f"{p}q3", f"{p}n3", "prompt")
        attend(f"{p}f", f"{p}k2", f"{p}q3", f"{p}n3", "cross")
        add(f"{p}g", keys, f"{p}f")
        norm(f"{p}n4", f"{p}g")
        tokens, keys = f"{p}n3", f"{p}n4"
    add("fq", tokens, "prompt")
    add("fk", keys, "place")
    attend("fa", "fq", "fk", keys, "cross")
    add("fb", tokens, "fa")
    norm("tokens", "fb", "final_eps")
    lines += [
        f"  turned = Transpose <perm = [0, 2, 1]> ({keys})",
        "  sides = Shape <start = 2, end = 4> (image)",
        "  map_shape = Concat <axis = 0> (prompts, channels, sides)",
        "  attended = Reshape <allowzero = 1> (turned, map_shape)",
    ]
    return "\n".join(lines)


def weight_names(depth: int) -> list[str]:
    """In the order of csrc/decoder/two_way.h."""
    attention = [f"{p}_{k}" for p in ("query", "key", "value", "out") for k in ("weight", "bias")]
    layer = [f"self_{x}" for x in attention] + ["norm1_weight", "norm1_bias"]
    layer += [f"to_image_{x}" for x in attention] + ["norm2_weight", "norm2_bias"]
    layer += ["mlp1_weight", "mlp1_bias", "mlp2_weight", "mlp2_bias", "norm3_weight", "norm3_bias"]
    layer += [f"to_prompt_{x}" for x in attention] + ["norm4_weight", "norm4_bias"]
    names = [f"layer{n}_{x}" for n in range(depth) for x in layer]
    return [*names, *(f"final_{x}" for x in attention), "final_norm_weight", "final_norm_bias"]


def relative_position(attributes: dict[str, Any]) -> str:
    """Windows of the size of the grid where there are none: one body for both kinds of layers of an encoder."""
    return (
        """
  size = Constant <value_ints: ints = @size> ()
  window = Constant <value_ints: ints = @window> ()
  scale_of = Constant <value_float: float = @scale> ()
  scale = CastLike (scale_of, q)
  minus = Constant <value_ints = [-1]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  up = Add (size, window)
  upper = Sub (up, one)
  counts = Div (upper, window)
  whole = Mul (counts, window)
  beyond = Sub (whole, size)
  batch = Shape <start = 0, end = 1> (q)
  heads = Shape <start = 2, end = 3> (q)
  width = Shape <start = 3, end = 4> (q)
  zeros = Constant <value_ints = [0]> ()
  nothing = Constant <value_ints = [0, 0, 0, 0, 0, 0]> ()
  tail = Constant <value_ints = [0, 0]> ()
  pads = Concat <axis = 0> (nothing, beyond, tail)
  grid_shape = Concat <axis = 0> (batch, size, heads, width)
  count_y = Slice (counts, zeros, one)
  count_x = Slice (counts, one, two)
  window_y = Slice (window, zeros, one)
  window_x = Slice (window, one, two)
  cut_shape = Concat <axis = 0> (batch, count_y, window_y, count_x, window_x, heads, width)
  cells = ReduceProd <keepdims = 1> (counts)
  sets = Mul (batch, cells)
  cell = ReduceProd <keepdims = 1> (window)
  row_shape = Concat <axis = 0> (sets, heads, cell, width)
  zero = CastLike (zeros, q)
  zero0 = Squeeze (zero)
  filler = CastLike (one, q)
  filler0 = Squeeze (filler)
  plain_shape = Concat <axis = 0> (one, size, one, one)
  plain = Expand (zero0, plain_shape)
  outside = Pad (plain, pads, filler0)
"""
        + "".join(
            f"""
  {x}g = Reshape ({x}, grid_shape)
  {x}b = Pad ({x}g, pads, zero0)
"""
            + (f"  {x}o = Mul (outside, {pad})\n  {x}w = Add ({x}b, {x}o)\n" if pad else f"  {x}w = Identity ({x}b)\n")
            + f"""
  {x}c = Reshape ({x}w, cut_shape)
  {x}t = Transpose <perm = [0, 1, 3, 5, 2, 4, 6]> ({x}c)
  {x}r = Reshape ({x}t, row_shape)
"""
            for x, pad in (("q", ""), ("k", "pad_key"), ("v", "pad_value"))
        )
        + """
  start = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  wy = Squeeze (window_y)
  wx = Squeeze (window_x)
  range_y = Range (start, wy, step)
  range_x = Range (start, wx, step)
  cy = Unsqueeze (range_y, one)
  cx = Unsqueeze (range_x, one)
  dy0 = Sub (cy, range_y)
  dx0 = Sub (cx, range_x)
  wy1 = Sub (wy, step)
  wx1 = Sub (wx, step)
  dy = Add (dy0, wy1)
  dx = Add (dx0, wx1)
  ry0 = Gather <axis = 0> (rel_h, dy)
  rx0 = Gather <axis = 0> (rel_w, dx)
  ry = Transpose <perm = [0, 2, 1]> (ry0)
  rx = Transpose <perm = [0, 2, 1]> (rx0)
  square = Concat <axis = 0> (sets, heads, window, width)
  qs = Reshape (qr, square)
  by = MatMul (qs, ry)
  qx = Transpose <perm = [0, 1, 3, 2, 4]> (qs)
  bx0 = MatMul (qx, rx)
  bx = Transpose <perm = [0, 1, 3, 2, 4]> (bx0)
  five = Constant <value_ints = [5]> ()
  four = Constant <value_ints = [4]> ()
  by6 = Unsqueeze (by, five)
  bx6 = Unsqueeze (bx, four)
  far = Add (by6, bx6)
  logit_shape = Concat <axis = 0> (sets, heads, cell, cell)
  bias = Reshape (far, logit_shape)
  kturned = Transpose <perm = [0, 1, 3, 2]> (kr)
  qscaled = Mul (qr, scale)
  near = MatMul (qscaled, kturned)
  logits = Add (near, bias)
  weight = Softmax <axis = -1> (logits)
  made = MatMul (weight, vr)
  back_shape = Concat <axis = 0> (batch, counts, heads, window, width)
  back = Reshape (made, back_shape)
  turned = Transpose <perm = [0, 1, 4, 2, 5, 3, 6]> (back)
  whole_shape = Concat <axis = 0> (batch, whole, heads, width)
  joined = Reshape (turned, whole_shape)
  axes = Constant <value_ints = [1, 2]> ()
  inside = Slice (joined, tail, size, axes)
  out_shape = Shape (q)
  out = Reshape (inside, out_shape)
"""
    )


# 1 for the prompt tokens that exist, (B or 1, T).
EXISTS = """
  first = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  count0 = Shape <start = 2, end = 3> ({rows})
  count = Squeeze (count0)
  steps = Range (first, count, step)
  ends = Unsqueeze (lengths, one)
  exists = Less (steps, ends)
  wide = Constant <value_ints = [1, 3]> ()
  there = Unsqueeze (exists, wide)
"""


def prompt_to_image(projected: bool) -> str:
    """(B, H, T, C) absorbed, (B, H, T, width) projected."""
    lines = PER_PROMPT.format(rows="query") + EXISTS.format(rows="query")
    lines += """
  place = Reshape (position, flat)
  xp = Add (x, place)
  values0 = Unsqueeze (x, one)
  keys0 = Unsqueeze (xp, one)
"""
    lines += (
        project("key", "keys0", "query") + project("value", "values0", "query")
        if projected
        else """
  key_map = Identity (keys0)
  value_map = Identity (values0)
"""
    )
    return (
        lines
        + """
  products = MatMul (query, key_map)
  bias_of = Reshape (bias, flat)
  bias4 = Unsqueeze (bias_of, one)
  logits = Add (products, bias4)
  peak0 = ReduceMax <keepdims = 1> (logits, minus)
  none = IsInf (peak0)
  zero0 = Constant <value_float = 0.0> ()
  zero = CastLike (zero0, logits)
  peak = Where (none, zero, peak0)
  lower = Sub (logits, peak)
  weight = Exp (lower)
  total0 = ReduceSum <keepdims = 1> (weight, minus)
  least0 = Constant <value_float = 1e-38> ()
  least = CastLike (least0, logits)
  total = Max (total0, least)
  turned = Transpose <perm = [0, 1, 3, 2]> (value_map)
  sums = MatMul (weight, turned)
  mean = Div (sums, total)
  out = Where (there, mean, zero)
"""
    )


def project(name: str, x: str, rows: str) -> str:
    """``{name}_weight`` (H width, C) by head, times (B, 1, C, N)."""
    return f"""
  {name}_heads = Shape <start = 1, end = 2> ({rows})
  {name}_shape = Concat <axis = 0> ({name}_heads, minus, channels)
  {name}_by_head = Reshape ({name}_weight, {name}_shape)
  {name}_map = MatMul ({name}_by_head, {x})
"""


def image_to_prompt(projected: bool) -> str:
    """(B, C, H, W); residual and LayerNorm are nodes of their own."""
    lines = PER_PROMPT.format(rows="key") + EXISTS.format(rows="key")
    lines += """
  place = Reshape (position, flat)
  xp = Add (x, place)
  query0 = Unsqueeze (xp, one)
"""
    lines += project("query", "query0", "key") if projected else "  query_map = Identity (query0)\n"
    lines += """
  products = MatMul (key, query_map)
  bias4 = Unsqueeze (bias, minus)
  seen = Add (products, bias4)
  low0 = Constant <value_float = -inf> ()
  low = CastLike (low0, seen)
  logits = Where (there, seen, low)
  weight = Softmax <axis = 2> (logits)
  turned = Transpose <perm = [0, 1, 3, 2]> (value)
  parts = MatMul (turned, weight)
"""
    lines += (
        """
  head_shape = Concat <axis = 0> (prompts, minus, pixels)
  joined = Reshape (parts, head_shape)
  mixed = MatMul (out_weight, joined)
"""
        if projected
        else "  mixed = ReduceSum <keepdims = 0> (parts, one)\n"
    )
    return (
        lines
        + """
  out_bias2 = Unsqueeze (out_bias, one)
  shifted = Add (mixed, out_bias2)
  sides = Shape <start = 2, end = 4> (image)
  map_shape = Concat <axis = 0> (prompts, channels, sides)
  out = Reshape <allowzero = 1> (shifted, map_shape)
"""
    )
