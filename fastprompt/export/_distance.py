"""The distance maps in standard ONNX, in onnx's text form. Slow, and exact: a fallback for every runtime."""

import itertools
from typing import Any


def euclidean(attributes: dict[str, Any]) -> str:
    """Axis after axis, d(i) = min over j of d(j) + (spacing (i - j))^2: one step of a Loop for every j."""
    lines = """
  seeds = Cast <to = 9> (mask)
  zero = Constant <value_float = 0.0> ()
  inf = Constant <value_float = inf> ()
  d2 = Where (seeds, zero, inf)
  first = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  yes0 = Constant <value_int = 1> ()
  yes = Cast <to = 9> (yes0)
"""
    for axis in (2, 3, 4):
        after = axis + 1
        shape = [-1, *[1] * (4 - axis)]
        lines += f"""
  n{axis}v = Shape <start = {axis}, end = {after}> (mask)
  n{axis} = Squeeze (n{axis}v)
  r{axis} = Range (first, n{axis}, step)
  s{axis} = Constant <value_float = {float(attributes["spacing"][axis - 2])!r}> ()
  shape{axis} = Constant <value_ints = {shape}> ()
  none{axis}s = Shape (mask)
  none{axis} = Expand (inf, none{axis}s)
  d{after} = Loop <body = axis{axis} (int64 j, bool go, float[N, M, D, H, W] best)
    => (bool going, float[N, M, D, H, W] better) {{
    going = Identity (go)
    row0 = Gather <axis = {axis}> (d{axis}, j)
    at = Constant <value_ints = [{axis}]> ()
    row = Unsqueeze (row0, at)
    steps0 = Sub (r{axis}, j)
    steps1 = Cast <to = 1> (steps0)
    steps2 = Mul (steps1, s{axis})
    steps3 = Mul (steps2, steps2)
    steps = Reshape (steps3, shape{axis})
    through = Add (row, steps)
    better = Min (best, through)
  }}> (n{axis}, yes, none{axis})
"""
    return lines + "  distance = Sqrt (d5)\n"


def geodesic(attributes: dict[str, Any]) -> str:
    """D(p) = min(D(p), min over q of D(q) + w(p, q)) for all pixels at once, until nothing changes."""
    if attributes["method"] != "exact":
        raise ValueError(
            f"GeodesicDistance with method={attributes['method']!r} has no form in standard ONNX: its order of pixels "
            "is the method; export with flavor='plugin', or use method='exact'"
        )
    kind = attributes["kind"]
    lines = """
  image0 = Cast <to = 1> (image)
  map0 = Cast <to = 1> (start)
  walled = Cast <to = 9> (walls)
  zero = Constant <value_float = 0.0> ()
  one = Constant <value_float = 1.0> ()
  inf = Constant <value_float = inf> ()
  nan = Constant <value_float = nan> ()
  v = Constant <value_float: float = @v> ()
  lam = Constant <value_float: float = @lam> ()
  limit = Constant <value_float: float = @limit> ()
  pixels = Where (walled, nan, image0)
  yes0 = Constant <value_int = 1> ()
  yes = Cast <to = 9> (yes0)
  often = Constant <value_int = 9223372036854775807> ()
  pads = Constant <value_ints = [0, 0, 1, 1, 1, 0, 0, 1, 1, 1]> ()
  axes = Constant <value_ints = [2, 3, 4]> ()
  channel = Constant <value_ints = [1]> ()
  padded = Pad (pixels, pads, nan)
  sides = Shape <start = 2, end = 5> (image)
"""
    lines += edges(attributes)
    if not kind.startswith("signed_"):
        return lines + begin("a", kind, False) + relax("a", attributes) + "  distance = Identity (a_out)\n"
    kind = kind.removeprefix("signed_")
    lines += begin("a", kind, False) + relax("a", attributes) + begin("b", kind, True) + relax("b", attributes)
    return (
        lines
        + """
  difference = Sub (a_out, b_out)
  far = IsInf (a_out)
  distance = Where (far, inf, difference)
"""
    )


def begin(p: str, kind: str, complement: bool) -> str:
    """Start values: 0 at a seed, v (1 - s) elsewhere."""
    if kind == "nonzero":
        cost = "Cast <to = 1> ({p}_not)"
        lines = f"  {p}_on = Cast <to = 9> (map0)\n"
        lines += f"  {p}_seed = {'Not' if complement else 'Identity'} ({p}_on)\n"
        lines += f"  {p}_not = Not ({p}_seed)\n  {p}_cost = {cost.format(p=p)}\n"
    else:
        degree = (kind == "seed") != complement  # 1 = seed
        lines = f"  {p}_cost = {'Sub (one, map0)' if degree else 'Identity (map0)'}\n"
        lines += f"  {p}_seed = Equal (map0, {'one' if degree else 'zero'})\n"
    return (
        lines
        + f"""
  {p}_scaled = Mul (v, {p}_cost)
  {p}_open = Where ({p}_seed, zero, {p}_scaled)
  {p}_start = Where (walled, inf, {p}_open)
"""
    )


def offsets(spacing: Any) -> list[tuple[int, ...]]:
    depth = (-1, 0, 1) if len(spacing) == 3 else (0,)
    return [o for o in itertools.product(depth, (-1, 0, 1), (-1, 0, 1)) if any(o)]


def edges(attributes: dict[str, Any]) -> str:
    """w(p, q) for every neighbour q, (B, 1, D, H, W); NaN where q does not exist."""
    spacing = attributes["spacing"]
    sizes = spacing if len(spacing) == 3 else (1.0, *spacing)
    lines = ""
    for n, offset in enumerate(offsets(spacing)):
        step = sum((s * o) ** 2 for s, o in zip(sizes, offset, strict=True)) ** 0.5
        lines += f"""
  from{n} = Constant <value_ints = {[1 + o for o in offset]}> ()
  to{n} = Add (sides, from{n})
  beside{n} = Slice (padded, from{n}, to{n}, axes)
  change{n} = Sub (pixels, beside{n})
"""
        if attributes["metric"] == "fastgeodis":
            lines += f"""
  size{n} = Abs (change{n})
  l1{n} = ReduceSum <keepdims = 1> (size{n}, channel)
  graded{n} = Mul (lam, l1{n})
  flat{n} = Constant <value_float = {float(attributes["step_weight"]) * step!r}> ()
  w{n} = Add (flat{n}, graded{n})
"""
            continue
        lines += f"""
  squares{n} = Mul (change{n}, change{n})
  sum{n} = ReduceSum <keepdims = 1> (squares{n}, channel)
  l2{n} = Sqrt (sum{n})
  step{n} = Constant <value_float = {step!r}> ()
"""
        if attributes["metric"] == "geodistk_fm":
            lines += f"  w{n} = Mul (step{n}, l2{n})\n"
        else:
            lines += f"""
  tiny{n} = Constant <value_float = 1e-5> ()
  sooner{n} = Add (l2{n}, tiny{n})
  part{n} = Div (lam, sooner{n})
  rest{n} = Sub (one, lam)
  speed{n} = Add (rest{n}, part{n})
  w{n} = Div (step{n}, speed{n})
"""
    return lines


def relax(p: str, attributes: dict[str, Any]) -> str:
    count = len(offsets(attributes["spacing"]))
    lines = f"  {p}_end = Loop <body = {p}_relax (int64 i, bool go, float[B, K, D, H, W] d) => "
    lines += "(bool changed, float[B, K, D, H, W] nearer) {\n    around = Pad (d, pads, inf)\n"
    for n in range(count):
        lines += f"""
    q{n} = Slice (around, from{n}, to{n}, axes)
    c{n} = Add (q{n}, w{n})
    n{n} = IsNaN (c{n})
    t{n} = Where (n{n}, inf, c{n})
"""
    lines += f"    nearer = Min (d, {', '.join(f't{n}' for n in range(count))})\n"
    lines += f"""
    less = Less (nearer, d)
    marks = Cast <to = 6> (less)
    any = ReduceMax <keepdims = 0> (marks)
    changed = Cast <to = 9> (any)
  }}> (often, yes, {p}_start)
  {p}_over = Greater ({p}_end, limit)
  {p}_out = Where ({p}_over, inf, {p}_end)
"""
    return lines
