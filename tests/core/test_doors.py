"""Wrong sizes, dtypes and numbers are refused at every door: when a graph is made, by the fake, by nodes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from fastprompt.ops._axes import check  # noqa: E402

ones = np.ones


@pytest.mark.parametrize(
    ("text", "arrays", "error", "match"),
    [
        ("x: a b", {"x": ones((2, 3), "f4")}, None, ""),
        ("x: a a", {"x": ones((2, 3), "f4")}, ValueError, r"op: x must have shape \(a, a\), got \(2, 3\)"),
        ("x: a _, y: a", {"x": ones((2, 3), "f4"), "y": ones(3, "f4")}, ValueError, r"y must have shape \(a = 2\)"),
        ("x: a", {"x": ones((2, 3), "f4")}, ValueError, r"x must have shape \(a\)"),
        ("x: a", {"x": None}, None, ""),
        ("x: 2 3", {"x": ones((2, 3), "f4")}, None, ""),
        ("x: 2 4", {"x": ones((2, 3), "f4")}, ValueError, "must have shape"),
        ("x: a, y: 2*a", {"x": ones(2, "f4"), "y": ones(4, "f4")}, None, ""),
        ("x: a, y: 2*a", {"x": ones(2, "f4"), "y": ones(5, "f4")}, ValueError, "y must have shape"),
        ("x: a b, y: a*b", {"x": ones((2, 3), "f4"), "y": ones(6, "f4")}, None, ""),
        ("x: a b, y: a*b", {"x": ones((2, 3), "f4"), "y": ones(7, "f4")}, ValueError, "y must have shape"),
        ("x: a, y: 1|a", {"x": ones(2, "f4"), "y": ones(1, "f4")}, None, ""),
        ("x: a, y: 1|a", {"x": ones(2, "f4"), "y": ones(3, "f4")}, ValueError, "must have shape .1 or a = 2"),
        ("x: a, y: b%a", {"x": ones(2, "f4"), "y": ones(4, "f4")}, None, ""),
        ("x: a, y: b%a", {"x": ones(2, "f4"), "y": ones(3, "f4")}, ValueError, "a multiple of a"),
        ("x: a, y: _%a _%a", {"x": ones(2, "f4"), "y": ones((4, 6), "f4")}, None, ""),
        ("x: a, y: b%a", {"x": ones(0, "f4"), "y": ones(3, "f4")}, ValueError, "a multiple of a"),
        ("x: ... c, y: ... d", {"x": ones((2, 3, 4), "f4"), "y": ones((2, 3, 5), "f4")}, None, ""),
        ("x: ... c, y: ... d", {"x": ones((2, 3, 4), "f4"), "y": ones((2, 2, 5), "f4")}, ValueError, "y must"),
        ("x: ... c, y: ... d", {"x": ones((2, 3, 4), "f4"), "y": ones((3, 5), "f4")}, ValueError, "y must"),
        ("x: a", {"x": ones(2)}, TypeError, "op: x must hold float32, got float64"),
        ("x int64: a", {"x": ones(2, int)}, None, ""),
        ("x bytes: a", {"x": ones(2, bool)}, None, ""),
        ("x any: a", {"x": ones(2, "c8")}, None, ""),
        ("w: a b / a", {"w": [ones((2, 3), "f4"), ones(2, "f4")]}, None, ""),
        ("w: a b / a", {"w": [ones((2, 3), "f4"), ones(3, "f4")]}, ValueError, r"w\[1\] must have shape"),
        ("w: a b / a", {"w": [ones((2, 3), "f4")]}, ValueError, "w must hold 2 arrays, got 1"),
        ("size: 2", {"size": [3, 4]}, None, ""),
        ("size: 2", {"size": [3]}, ValueError, r"size must be 2 numbers, not negative, got \[3\]"),
        ("size: 2", {"size": [3, -4]}, ValueError, "size must be 2 numbers"),
        ("eps: 1", {"eps": [-1.0]}, None, ""),
    ],
)
def test_axes(text, arrays, error, match):
    if error is None:
        check("op", text, arrays)
    else:
        with pytest.raises(error, match=match):
            check("op", text, arrays)


class Film(torch.nn.Module):
    def forward(self, x, gamma):
        return torch.ops.fastprompt.film(x, gamma, gamma, False)


def test_compile_and_export_refuse_what_does_not_fit():
    x, right, short = torch.rand(2, 6, 5), torch.rand(2, 6), torch.rand(2, 3)
    assert torch.equal(torch.compile(Film(), backend="eager")(x, right), Film()(x, right))
    with pytest.raises(Exception, match="film: x must have shape"):
        torch.compile(Film(), backend="eager", fullgraph=True)(x, short)
    with pytest.raises(Exception, match="film: x must have shape"):
        torch.export.export(Film(), (x, short))


def test_export_with_unknown_sizes():
    """Sizes that must agree become one symbol, and a guard."""
    any_size = torch.export.Dim.DYNAMIC
    shapes = {"x": {0: any_size, 1: any_size, 2: any_size}, "gamma": {0: any_size, 1: any_size}}
    program = torch.export.export(Film(), (torch.rand(2, 6, 5), torch.rand(2, 6)), dynamic_shapes=shapes)
    x, gamma = torch.rand(3, 4, 7), torch.rand(3, 4)
    assert torch.equal(program.module()(x, gamma), Film()(x, gamma))
    with pytest.raises((ValueError, RuntimeError, AssertionError)):
        program.module()(x, torch.rand(3, 5))


def test_the_fake_refuses():
    ops, rand = torch.ops.fastprompt, torch.rand
    index = lambda *shape: torch.zeros(*shape, dtype=torch.int64)  # noqa: E731
    layer = lambda: [rand(16, 16), rand(16), rand(4, 16), rand(4)]  # noqa: E731
    calls = {
        "base must have shape": lambda: ops.scatter_rows_(rand(1, 4, 4), rand(1, 4, 9), index(1, 4)),
        "base must hold int64": lambda: ops.scatter_rows_(rand(8, 6, 6), index(8, 8, 6), index(8, 8)),
        "negative size": lambda: ops.scatter_rows(None, rand(1, 4, 4), index(1, 4), -1),
        "k must have shape": lambda: ops.memory_read(rand(2, 7, 2, 32), rand(1, 9, 2, 32), rand(1, 9, 2, 32), 1.0),
        "rows must be rows of": lambda: ops.token_mlps(rand(1, 3, 16), [10**6], layer(), 2),
        "weights must hold 4 arrays for": lambda: ops.token_mlps(rand(1, 3, 16), [0], layer()[:3], 2),
        r"weights\[2\] must have": lambda: ops.token_mlps(rand(1, 3, 16), [0], [*layer()[:2], rand(4, 5), rand(4)], 2),
        "prompts must have shape": lambda: ops.cosine_scores(rand(4, 8, 8), rand(3, 1, 8)),
        "index must hold int64": lambda: ops.gather_rows(rand(1, 4, 4), index(1, 4).int()),
        "labels must have shape": lambda: ops.click_map(
            rand(1, 9, 2), index(1, 1), [1], [8, 8], 0, [4.0], 1e9, 1.0, False, 1.0
        ),
        "q must have shape": lambda: ops.relative_attention(
            *(rand(1, 4, 1, 16) for _ in range(3)), rand(99, 16), rand(99, 16), None, None, None, [50, 50], [0, 0], 1.0
        ),
        "vectors must have shape": lambda: ops.mask_head(
            rand(1, 32, 4, 4), rand(1, 2, 1), rand(32, 8, 2, 2), rand(8), rand(8), rand(8), rand(8, 4, 2, 2), rand(4),
            None, None, 1e-6
        ),
    }  # fmt: skip
    for match, call in calls.items():
        with FakeTensorMode(), pytest.raises((ValueError, TypeError), match=match):
            call()
        with pytest.raises((ValueError, TypeError)):
            call()


def test_one_set_of_prompts_for_all_images():
    """Which is allowed, and not a mistake: (1, P, C)."""
    tokens, prompts = torch.rand(4, 9, 8), torch.rand(1, 1, 8)
    each = torch.ops.fastprompt.cosine_scores(tokens, prompts.repeat(4, 1, 1))
    assert torch.equal(torch.ops.fastprompt.cosine_scores(tokens, prompts), each)


# ---------------------------------------------------------------- nodes

export_cases = pytest.importorskip("export_cases")
from fastprompt.export._library import Node  # noqa: E402

HUGE = 2**62
WRONG = [
    ("GeodesicDistance", {"lam": 1.5}, "lam must be between 0 and 1"),
    ("GeodesicDistance", {"lam": -1.0}, "lam must be between 0 and 1"),
    ("GeodesicDistance", {"step_weight": -1.0}, "step_weight must be between 0 and 1"),
    ("GeodesicDistance", {"limit": float("nan")}, "limit must not be negative"),
    ("GeodesicDistance", {"v": -1.0}, "v must not be negative"),
    ("GeodesicDistance", {"spacing": [0.0, 1.0]}, "spacing must be positive"),
    ("GeodesicDistance, raster", {"iterations": 2**31 - 1}, "iterations must be between 0 and 10000"),
    ("GeodesicDistance, raster", {"iterations": 2**32 + 1}, "iterations must be between 0 and 2147483647"),
    ("EuclideanDistanceTransform", {"spacing": [1.0, float("inf"), 1.0]}, "spacing must be positive"),
    ("ClickMap, disks", {"size": [HUGE, 4]}, "size must be 2 numbers between 0 and"),
    ("ClickMap, disks", {"size": [2**31 - 1, 2**31 - 1]}, "too large"),
    ("BoxMap", {"size": [-1, 4]}, "size must be 2 numbers between 0 and"),
    ("ResizeMasks", {"size": [HUGE, HUGE]}, "size must be 2 numbers between 0 and"),
    ("ResizeMasks", {"frame": [HUGE, 1]}, "frame must be 2 numbers between 0 and"),
    ("RelativePositionAttention", {"size": [HUGE, 4]}, "size must be 2 numbers between 0 and"),
    ("RelativePositionAttention", {"size": [50, 50]}, "q must hold the tokens of the grid"),
    ("GridAttention", {"pool": 0}, "pool must be positive"),
    ("GridAttention", {"pool": 2}, "pool must divide size and window"),
    ("GridAttention, windows", {"size": [7, 7]}, "q must hold the tokens of the grid"),
    ("ProjectedMemoryRead", {"size": [HUGE, 4]}, "size must be 2 numbers between 0 and"),
    ("ProjectedMemoryRead", {"size": [3, 3]}, "size must be rows and columns of the positions of key_cos"),
    ("TurnedMemoryRead", {"scale": float("nan")}, "scale must be finite"),
    ("TwoWayTransformer", {"heads": HUGE}, "heads must be between 0 and"),
    ("TwoWayTransformer", {"heads": 2**31 - 1, "width": 2**31 - 1}, "must be multiples of 16"),
    ("TwoWayTransformer", {"depth": 2**31 - 1}, "wrong number of weights"),
    ("MaskDecoder", {"first": HUGE}, "first must be between 0 and"),
    ("MaskDecoder", {"masks": HUGE}, "masks must be between 0 and"),
    ("PruneTokens", {"count": -1}, "count must be between 0 and"),
    ("ScatterTokens", {"count": HUGE}, "count must be between 0 and"),
    ("MatchTokens", {"merged": HUGE}, "merged must be between 0 and"),
]


@pytest.mark.parametrize(("name", "changes", "match"), WRONG)
def test_nodes_refuse(name, changes, match):
    case = export_cases.found(name)
    with pytest.raises(ValueError, match=match):
        Node(name.partition(",")[0], case.attributes | changes).run(case.inputs)


def test_nodes_refuse_in_onnx_runtime():
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    model = export_cases.model("GeodesicDistance", "plugin")
    model = onnx.load_model_from_string(model) if isinstance(model, bytes) else model
    (lam,) = [a for a in model.graph.node[0].attribute if a.name == "lam"]
    lam.f = 1.5
    import fastprompt as fp

    options = fp.export.onnxruntime.register(onnxruntime.SessionOptions())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="lam must be between 0 and 1"):
        session.run(None, export_cases.feeds("GeodesicDistance"))
