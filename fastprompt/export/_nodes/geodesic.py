"""The distance maps. Their bodies are slow, and exact: a fallback for every runtime."""

import itertools

from fastprompt.export._kernels.plans import Tensor, need
from fastprompt.export._nodes._body import BOOL, FLOAT, UNTIL_DONE, Graph, Value
from fastprompt.export._nodes._pieces import not_nan
from fastprompt.export._nodes._record import Arguments, Record

INF, AXES = float("inf"), [2, 3, 4]


def euclidean(g: Graph, mask: Value) -> Value:
    """Axis after axis, d(i) = min over j of d(j) + (spacing (i - j))^2: one step of a Loop for every j."""
    d2 = g.Where(mask.cast(BOOL), 0.0, INF)
    for axis, spacing in zip(AXES, g.a["spacing"], strict=True):
        d2 = along(g, d2, mask, axis, float(spacing))
    return g.Sqrt(d2)


def along(g: Graph, d2: Value, mask: Value, axis: int, spacing: float) -> Value:
    count = g.Squeeze(mask.size(axis))
    places = g.Range(0, count, 1)

    def step(j: Value, best: Value) -> tuple[None, Value]:
        steps = (places - j).cast(FLOAT) * spacing
        through = g.Gather(d2, j, axis=axis).unsqueezed(axis) + (steps * steps).reshape([-1, *[1] * (4 - axis)])
        return None, g.Min(best, through)

    return g.loop(count, [g.Expand(INF, mask.shape())], "NMDHW", step)[0]


Record(
    "EuclideanDistanceTransform",
    "mask:a",
    "distance:f",
    "spacing:F",
    body=euclidean,
    torch="euclidean_distance_transform",
)

# ---------------------------------------------------------------- geodesic


class Grid:
    """The pixels, NaN at a wall, and w(p, q) for every neighbour q, (B, 1, D, H, W); NaN where q does not exist."""

    def __init__(self, g: Graph, image: Value, walls: Value) -> None:
        spacing = g.a["spacing"]
        self.g, self.walled, self.volume = g, walls.cast(BOOL), len(spacing) == 3
        self.pixels = g.Where(self.walled, float("nan"), image.cast(FLOAT))
        self.sides = image.shape(2, 5)
        depth = (-1, 0, 1) if self.volume else (0,)
        self.offsets = [o for o in itertools.product(depth, (-1, 0, 1), (-1, 0, 1)) if any(o)]
        padded = self.padded(self.pixels, float("nan"))
        sizes = spacing if self.volume else (1.0, *spacing)
        steps = [sum((s * o) ** 2 for s, o in zip(sizes, offset, strict=True)) ** 0.5 for offset in self.offsets]
        self.weights = [
            self.weight(self.pixels - self.beside(padded, offset), step)
            for offset, step in zip(self.offsets, steps, strict=True)
        ]

    def padded(self, x: Value, value: float) -> Value:
        return self.g.Pad(x, [0, 0, 1, 1, 1] * 2, value)

    def beside(self, padded: Value, offset: tuple[int, ...]) -> Value:
        start = self.g.value([1 + o for o in offset])
        return self.g.Slice(padded, start, self.sides + start, AXES)

    def weight(self, change: Value, step: float) -> Value:
        g = self.g
        if g.a["metric"] == "fastgeodis":
            length = g.ReduceSum(g.Abs(change), [1], keepdims=1)
            return float(g.a["step_weight"]) * step + g.value("@lam") * length
        length = g.Sqrt(g.ReduceSum(change * change, [1], keepdims=1))
        if g.a["metric"] == "geodistk_fm":
            return step * length
        lam = g.value("@lam")
        return step / (1.0 - lam + lam / (length + 1e-5))

    def nearest(self, d: Value, candidates: list[Value]) -> Value:
        """The least of ``d`` and of what is no NaN."""
        return self.g.Min(d, *(not_nan(self.g, x, INF) for x in candidates))

    def begin(self, start: Value, kind: str, complement: bool) -> Value:
        """Start values: 0 at a seed, v (1 - s) elsewhere."""
        g = self.g
        if kind == "nonzero":
            seed = ~start.cast(BOOL) if complement else start.cast(BOOL)
            cost = (~seed).cast(FLOAT)
        else:
            degree = (kind == "seed") != complement  # 1 = seed
            cost, seed = 1.0 - start if degree else start, g.Equal(start, 1.0 if degree else 0.0)
        return g.Where(self.walled, INF, g.Where(seed, 0.0, g.value("@v") * cost))

    def relaxed(self, d: Value) -> Value:
        """All pixels at once, until nothing changes."""
        g = self.g

        def step(k: Value, d: Value) -> tuple[Value, Value]:
            around = self.padded(d, INF)
            beside = [self.beside(around, o) + w for o, w in zip(self.offsets, self.weights, strict=True)]
            nearer = self.nearest(d, beside)
            return g.ReduceMax((nearer < d).cast(6), keepdims=0).cast(BOOL), nearer

        return g.loop(UNTIL_DONE, [d], "BKDHW", step)[0]

    def swept(self, d: Value, axis: int, direction: int) -> Value:
        """A line takes from the line behind it; a sweep back is one forth of what is turned around."""
        g = self.g
        span = ([0], [2**63 - 1], [axis], [1]) if direction > 0 else ([-1], [-(2**63) + 1], [axis], [-1])
        lines, count = g.Slice(d, *span), d.size(axis)
        others = [k for k in AXES if k != axis]
        first = g.Gather(lines, 0, axis=axis)
        size = first.shape(2)
        behind = []
        for offset, weight in zip(self.offsets, self.weights, strict=True):
            if offset[axis - 2] == -direction:
                low = g.value([1 + offset[k - 2] for k in others])
                behind.append((low, size + low, g.Slice(weight, *span)))

        def step(k: Value, last: Value) -> tuple[None, Value, Value]:
            around = g.Pad(last, [0, 0, 1, 1] * 2, INF)
            beside = [g.Slice(around, a, b, [2, 3]) + g.Gather(w, k, axis=axis) for a, b, w in behind]
            line = self.nearest(g.Gather(lines, k, axis=axis), beside)
            return None, line, g.Identity(line)

        _, kept = g.loop(g.Squeeze(count), [g.Expand(INF, first.shape())], "BKRS", step, scans=1)
        # Reshape: onnx's evaluator joins the lines where a runtime stacks them.
        stacked = kept.reshape(g.Concat(count, first.shape(), axis=0))
        perm = [1, 2, 3, 4]
        perm.insert(axis, 0)
        return g.Slice(stacked.turned(*perm), *span)

    def solved(self, d: Value) -> Value:
        """ "raster" is FastGeodis' order: along each axis forth and back."""
        if self.g.a["method"] == "raster":
            axes = AXES if self.volume else AXES[1:]
            for _, axis, direction in itertools.product(range(self.g.a["iterations"]), axes, (1, -1)):
                d = self.swept(d, axis, direction)
        else:
            d = self.relaxed(d)
        return self.g.Where(d > "@limit", INF, d)


def geodesic(g: Graph, image: Value, start: Value, walls: Value) -> Value:
    """D(p) = min(D(p), min over q of D(q) + w(p, q)): for all pixels at once until nothing changes, or line by line."""
    if g.a["method"] == "toivanen":
        raise ValueError(
            "GeodesicDistance with method='toivanen' has no form in standard ONNX: its order of single pixels is the "
            "method; export with flavor='plugin', or use method='exact' or 'raster'"
        )
    grid, start = Grid(g, image, walls), start.cast(FLOAT)
    kind = g.a["kind"].removeprefix("signed_")
    inside = grid.solved(grid.begin(start, kind, False))
    if kind == g.a["kind"]:
        return inside
    outside = grid.solved(grid.begin(start, kind, True))
    return g.Where(g.IsInf(inside), INF, inside - outside)


def check_plugin(given: list[Tensor], attributes: Arguments) -> None:
    need(attributes["method"] in ("raster", "exact"), f"method {attributes['method']!r} has no kernel for a GPU")
    need(given[0].known(2) == 1 and len(attributes["spacing"]) == 2, "the plugin takes pictures, of depth 1")


Record(
    "GeodesicDistance",
    "image:a start:a walls:a?5",
    "distance:f",
    "kind:s metric:s method:s iterations:i lam:f step_weight:f spacing:F v:f limit:f",
    body=geodesic,
    own_plugin=check_plugin,
    plugin_types=(FLOAT, FLOAT, BOOL),
    torch="geodesic_distance",
)
