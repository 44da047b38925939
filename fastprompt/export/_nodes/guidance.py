"""Maps of clicks and boxes."""

from fastprompt.export._nodes._body import FLOAT, Graph, Value
from fastprompt.export._nodes._pieces import levels
from fastprompt.export._nodes._record import OF_HOST, Record, without_node

INF, PIXELS = float("inf"), [2, 3]
DISK, DISTANCE, TANH, GAUSSIAN = range(4)  # codes of click maps


def grid(g: Graph) -> tuple[Value, Value]:
    """Columns and rows of the image as float, (W) and (H)."""
    height, width = g.a["size"]
    return g.Range(0, int(width), 1).cast(FLOAT), g.Range(0, int(height), 1).cast(FLOAT)


def coordinates(g: Graph, points: Value, count: int) -> list[Value]:
    points = points.cast(FLOAT)
    return [g.Gather(points, k, axis=2) for k in range(count)]


def joined(columns: Value, rows: Value) -> tuple[Value, Value]:
    """(B, N, W) and (B, N, H) as (B, N, 1, W) and (B, N, H, 1)."""
    return columns.unsqueezed(2), rows.unsqueezed(-1)


def nearest(g: Graph, each: Value) -> Value:
    """The least of (B, N, H, W), (B, 1, H, W); infinite where N is 0."""
    none = g.Expand(INF, g.Concat(each.size(0), [1], each.shape(2), axis=0))
    return g.ReduceMin(g.Concat(none, each, axis=1), [1], keepdims=1)


# ---------------------------------------------------------------- clicks


def click_map(g: Graph, points: Value, labels: Value) -> Value:
    """d2 to the nearest click of each channel, by all clicks; a slot without one counts as ``missing``."""
    (columns, rows), (x, y) = grid(g), coordinates(g, points, 2)
    there = (g.Abs(x) < INF) & (g.Abs(y) < INF) & ~((x < 0.0) & (y < 0.0))
    dx, dy = (places - g.Where(there, at, 0.0).unsqueezed(-1) for places, at in ((columns, x), (rows, y)))
    wide, tall = joined(dx * dx, dy * dy)
    d2 = g.Where(there.unsqueezed(2, 3), tall + wide, "@missing")
    parts = []
    for label in g.a["channels"]:
        own = g.Equal(labels, int(label))
        least = nearest(g, g.Where(own.unsqueezed(2, 3), d2, INF))
        values = [encoded(g, least, float(scale)) for scale in g.a["scales"]]
        parts += [stretched(g, v, own & there) for v in values] if g.a["stretch"] else values
    return g.Concat(*parts, axis=1)


def encoded(g: Graph, d2: Value, scale: float) -> Value:
    code = g.a["code"]
    if code == DISK:
        return (d2 <= scale).cast(FLOAT)
    if code == GAUSSIAN:
        made = g.Exp(-(d2 * scale))
    elif code == TANH:
        made = g.Tanh(g.Sqrt(d2) * scale)
    else:
        made = g.Min(g.Sqrt(d2), "@clip") / "@divisor"
    return made


def stretched(g: Graph, x: Value, clicks: Value) -> Value:
    """From 0 to 1; what it would be far from any click where there is none."""
    above, range_ = levels(g, x, PIXELS)
    some = g.ReduceSum(clicks.cast(FLOAT), [1], keepdims=1).unsqueezed(2, 3) > 0.0
    return g.Where(some, above / g.Max(range_, 1e-8), 0.0 if g.a["code"] == GAUSSIAN else 1.0)


Record(
    "ClickMap",
    "points:a labels:i",
    "maps:f",
    "size:I channels:I code:i scales:F clip:f divisor:f stretch:i missing:f",
    body=click_map,
    torch="click_map",
)

# ---------------------------------------------------------------- boxes


def box_map(g: Graph, corners: Value) -> Value:
    columns, rows = grid(g)
    ax, ay, bx, by = (x.unsqueezed(-1) for x in coordinates(g, corners, 4))
    sides = [g.Min(at - g.Min(a, b), g.Max(a, b) - at) for at, a, b in ((columns, ax, bx), (rows, ay, by))]
    inside = g.Min(*joined(*sides))
    wide, tall = joined(*(x * x for x in (g.Max(-side, 0.0) for side in sides)))
    signed = g.Where(inside >= 0.0, -inside, g.Sqrt(wide + tall))
    unknown = g.ReduceMax(g.IsNaN(corners.cast(FLOAT)).cast(FLOAT), [-1], keepdims=1).unsqueezed(-1)
    least = nearest(g, g.Where(unknown > 0.0, INF, signed))
    if not g.a["distance"]:
        return (least <= 0.0).cast(FLOAT)
    return g.Min(g.Max("@offset" + least, "@low"), "@high")


Record("BoxMap", "corners:a", "maps:f", "size:I distance:i offset:f low:f high:f", body=box_map, torch="box_map")

without_node(
    OF_HOST, "next_click", "polygon_mask", "scribble_map", "superpixel_map", "proposal_vote_map",
    "prompt_unified_encoding",
)  # fmt: skip
