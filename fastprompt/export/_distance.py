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
    """D(p) = min(D(p), min over q of D(q) + w(p, q)): for all pixels at once until nothing changes, or line by line."""
    if attributes["method"] == "toivanen":
        raise ValueError(
            "GeodesicDistance with method='toivanen' has no form in standard ONNX: its order of single pixels is the "
            "method; export with flavor='plugin', or use method='exact' or 'raster'"
        )
    solve = sweeps if attributes["method"] == "raster" else relax
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
        return lines + begin("a", kind, False) + solve("a", attributes) + "  distance = Identity (a_out)\n"
    kind = kind.removeprefix("signed_")
    lines += begin("a", kind, False) + solve("a", attributes) + begin("b", kind, True) + solve("b", attributes)
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
"""
    return lines + limited(p)


def limited(p: str) -> str:
    return f"  {p}_over = Greater ({p}_end, limit)\n  {p}_out = Where ({p}_over, inf, {p}_end)\n"


def sweeps(p: str, attributes: dict[str, Any]) -> str:
    """FastGeodis' order: along each axis forth and back, a line taking from the line behind it."""
    axes = (2, 3, 4) if len(attributes["spacing"]) == 3 else (3, 4)
    passes = list(itertools.product(range(attributes["iterations"]), axes, (1, -1)))
    lines, before = "", f"{p}_start"
    for k, (_, axis, direction) in enumerate(passes):
        after = f"{p}_end" if k == len(passes) - 1 else f"{p}_after{k}"
        lines += sweep(f"{p}{k}", before, after, axis, direction, attributes["spacing"])
        before = after
    return (lines or f"  {p}_end = Identity ({p}_start)\n") + limited(p)


def sweep(p: str, before: str, after: str, axis: int, direction: int, spacing: Any) -> str:
    """A sweep back is one forth of what is turned around."""
    behind = [(n, o) for n, o in enumerate(offsets(spacing)) if o[axis - 2] == -direction]
    others = [k for k in (2, 3, 4) if k != axis]
    lines = f"""
  {p}_at = Constant <value_ints = [{axis}]> ()
  {p}_others = Constant <value_ints = [2, 3]> ()
  {p}_from = Constant <value_ints = [{-1 if direction < 0 else 0}]> ()
  {p}_to = Constant <value_ints = [{-(2**63) + 1 if direction < 0 else 2**63 - 1}]> ()
  {p}_step = Constant <value_ints = [{direction}]> ()
  {p}_pads = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> ()
  {p}_count0 = Shape <start = {axis}, end = {axis + 1}> ({before})
  {p}_count = Squeeze ({p}_count0)
  {p}_d = Slice ({before}, {p}_from, {p}_to, {p}_at, {p}_step)
  {p}_first = Constant <value_int = 0> ()
  {p}_line = Gather <axis = {axis}> ({p}_d, {p}_first)
  {p}_line_shape = Shape ({p}_line)
  {p}_nothing = Expand (inf, {p}_line_shape)
  {p}_size = Shape <start = 2> ({p}_line)
"""
    for n, o in behind:
        lines += f"""
  {p}_w{n} = Slice (w{n}, {p}_from, {p}_to, {p}_at, {p}_step)
  {p}_low{n} = Constant <value_ints = {[1 + o[k - 2] for k in others]}> ()
  {p}_high{n} = Add ({p}_size, {p}_low{n})
"""
    lines += f"""
  {p}_last, {p}_lines = Loop <body = {p}_sweep (int64 i, bool go, float[B, K, R, S] last)
    => (bool going, float[B, K, R, S] line, float[B, K, R, S] kept) {{
    going = Identity (go)
    own = Gather <axis = {axis}> ({p}_d, i)
    around = Pad (last, {p}_pads, inf)
"""
    for n, _ in behind:
        lines += f"""
    q{n} = Slice (around, {p}_low{n}, {p}_high{n}, {p}_others)
    e{n} = Gather <axis = {axis}> ({p}_w{n}, i)
    c{n} = Add (q{n}, e{n})
    n{n} = IsNaN (c{n})
    t{n} = Where (n{n}, inf, c{n})
"""
    # Reshape: onnx's evaluator joins the lines where a runtime stacks them.
    back = {2: [1, 2, 0, 3, 4], 3: [1, 2, 3, 0, 4], 4: [1, 2, 3, 4, 0]}[axis]
    return (
        lines
        + f"""
    line = Min (own, {", ".join(f"t{n}" for n, _ in behind)})
    kept = Identity (line)
  }}> ({p}_count, yes, {p}_nothing)
  {p}_all_shape = Concat <axis = 0> ({p}_count0, {p}_line_shape)
  {p}_all = Reshape ({p}_lines, {p}_all_shape)
  {p}_swept = Transpose <perm = {back}> ({p}_all)
  {after} = Slice ({p}_swept, {p}_from, {p}_to, {p}_at, {p}_step)
"""
    )
