"""Maps of clicks and boxes in standard ONNX, in onnx's text form."""

from typing import Any

# Pixels of the image as float, (H) and (W).
GRID = """
  first = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  height = Constant <value_int = {height}> ()
  width = Constant <value_int = {width}> ()
  rows0 = Range (first, height, step)
  columns0 = Range (first, width, step)
  rows = Cast <to = 1> (rows0)
  columns = Cast <to = 1> (columns0)
  zero = Constant <value_float = 0.0> ()
  one = Constant <value_float = 1.0> ()
  inf = Constant <value_float = inf> ()
  last = Constant <value_ints = [-1]> ()
  axis1 = Constant <value_ints = [1]> ()
  axis2 = Constant <value_ints = [2]> ()
  pixels = Constant <value_ints = [2, 3]> ()
"""


def coordinate(name: str, of: str, row: int) -> str:
    return f"  {name}_row = Constant <value_int = {row}> ()\n  {name} = Gather <axis = 2> ({of}, {name}_row)\n"


def click_map(attributes: dict[str, Any]) -> str:
    """d2 to the nearest click of each channel, by all clicks; a slot without one counts as ``missing``."""
    lines = GRID.format(height=attributes["size"][0], width=attributes["size"][1])
    lines += "  points32 = Cast <to = 1> (points)\n" + coordinate("x", "points32", 0) + coordinate("y", "points32", 1)
    lines += """
  missing = Constant <value_float: float = @missing> ()
  clip = Constant <value_float: float = @clip> ()
  divisor = Constant <value_float: float = @divisor> ()
  least = Constant <value_float = 1e-8> ()
  size_x = Abs (x)
  size_y = Abs (y)
  finite_x = Less (size_x, inf)
  finite_y = Less (size_y, inf)
  finite = And (finite_x, finite_y)
  left = Less (x, zero)
  above = Less (y, zero)
  outside = And (left, above)
  inside = Not (outside)
  there = And (finite, inside)
  px0 = Where (there, x, zero)
  py0 = Where (there, y, zero)
  px = Unsqueeze (px0, last)
  py = Unsqueeze (py0, last)
  dx = Sub (columns, px)
  dy = Sub (rows, py)
  dx2 = Mul (dx, dx)
  dy2 = Mul (dy, dy)
  wide = Unsqueeze (dx2, axis2)
  tall = Unsqueeze (dy2, last)
  d2 = Add (tall, wide)
  pair = Constant <value_ints = [2, 3]> ()
  there4 = Unsqueeze (there, pair)
  d2_or_missing = Where (there4, d2, missing)
  batch = Shape <start = 0, end = 1> (points)
  size = Shape <start = 2> (d2)
  none_shape = Concat <axis = 0> (batch, axis1, size)
  none = Expand (inf, none_shape)
"""
    parts = []
    for c, label in enumerate(attributes["channels"]):
        lines += f"""
  label{c} = Constant <value_int = {label}> ()
  of{c} = Equal (labels, label{c})
  of{c}_4 = Unsqueeze (of{c}, pair)
  own{c} = Where (of{c}_4, d2_or_missing, inf)
  all{c} = Concat <axis = 1> (none, own{c})
  nearest{c} = ReduceMin <keepdims = 1> (all{c}, axis1)
"""
        for s, scale in enumerate(attributes["scales"]):
            lines += f"  scale{c}_{s} = Constant <value_float = {float(scale)!r}> ()\n"
            lines += encoded(attributes["code"], f"nearest{c}", f"scale{c}_{s}", f"value{c}_{s}")
            name = f"value{c}_{s}"
            if attributes["stretch"]:
                lines += stretched(name, c, attributes["code"] == 3)
                name += "_stretched"
            parts.append(name)
    return lines + f"  maps = Concat <axis = 1> ({', '.join(parts)})\n"


def encoded(code: int, d2: str, scale: str, out: str) -> str:
    if code == 0:
        return f"  {out}_in = LessOrEqual ({d2}, {scale})\n  {out} = Cast <to = 1> ({out}_in)\n"
    if code == 3:
        return f"  {out}_p = Mul ({d2}, {scale})\n  {out}_n = Neg ({out}_p)\n  {out} = Exp ({out}_n)\n"
    lines = f"  {out}_d = Sqrt ({d2})\n"
    if code == 2:
        return lines + f"  {out}_s = Mul ({out}_d, {scale})\n  {out} = Tanh ({out}_s)\n"
    return lines + f"  {out}_c = Min ({out}_d, clip)\n  {out} = Div ({out}_c, divisor)\n"


def stretched(out: str, channel: int, gaussian: bool) -> str:
    """From 0 to 1; what it would be far from any click where there is none."""
    return f"""
  {out}_low = ReduceMin <keepdims = 1> ({out}, pixels)
  {out}_high = ReduceMax <keepdims = 1> ({out}, pixels)
  {out}_range0 = Sub ({out}_high, {out}_low)
  {out}_range = Max ({out}_range0, least)
  {out}_up = Sub ({out}, {out}_low)
  {out}_unit = Div ({out}_up, {out}_range)
  {out}_real0 = And (of{channel}, there)
  {out}_real1 = Cast <to = 1> ({out}_real0)
  {out}_count0 = ReduceSum <keepdims = 1> ({out}_real1, axis1)
  {out}_count = Unsqueeze ({out}_count0, pixels)
  {out}_some = Greater ({out}_count, zero)
  {out}_stretched = Where ({out}_some, {out}_unit, {"zero" if gaussian else "one"})
"""


def box_map(attributes: dict[str, Any]) -> str:
    lines = GRID.format(height=attributes["size"][0], width=attributes["size"][1])
    lines += "  corners32 = Cast <to = 1> (corners)\n"
    for row, name in enumerate(("ax", "ay", "bx", "by")):
        lines += coordinate(name, "corners32", row) + f"  {name}1 = Unsqueeze ({name}, last)\n"
    for axis, pixels in (("x", "columns"), ("y", "rows")):
        lines += f"""
  low_{axis} = Min (a{axis}1, b{axis}1)
  high_{axis} = Max (a{axis}1, b{axis}1)
  from_{axis} = Sub ({pixels}, low_{axis})
  to_{axis} = Sub (high_{axis}, {pixels})
  in_{axis} = Min (from_{axis}, to_{axis})
  out0_{axis} = Neg (in_{axis})
  out_{axis} = Max (out0_{axis}, zero)
"""
    return (
        lines
        + """
  in_x4 = Unsqueeze (in_x, axis2)
  in_y4 = Unsqueeze (in_y, last)
  inside = Min (in_x4, in_y4)
  out_x2 = Mul (out_x, out_x)
  out_y2 = Mul (out_y, out_y)
  out_x4 = Unsqueeze (out_x2, axis2)
  out_y4 = Unsqueeze (out_y2, last)
  outside2 = Add (out_x4, out_y4)
  outside = Sqrt (outside2)
  within = GreaterOrEqual (inside, zero)
  minus = Neg (inside)
  signed = Where (within, minus, outside)
  nan0 = IsNaN (corners32)
  nan1 = Cast <to = 1> (nan0)
  nan2 = ReduceMax <keepdims = 1> (nan1, last)
  nan3 = Unsqueeze (nan2, last)
  no_box = Greater (nan3, zero)
  each = Where (no_box, inf, signed)
  batch = Shape <start = 0, end = 1> (corners)
  size = Shape <start = 2> (each)
  none_shape = Concat <axis = 0> (batch, axis1, size)
  none = Expand (inf, none_shape)
  all = Concat <axis = 1> (none, each)
  nearest = ReduceMin <keepdims = 1> (all, axis1)
"""
        + (
            """
  offset = Constant <value_float: float = @offset> ()
  low = Constant <value_float: float = @low> ()
  high = Constant <value_float: float = @high> ()
  moved = Add (offset, nearest)
  over = Max (moved, low)
  maps = Min (over, high)
"""
            if attributes["distance"]
            else "  in_a_box = LessOrEqual (nearest, zero)\n  maps = Cast <to = 1> (in_a_box)\n"
        )
    )
