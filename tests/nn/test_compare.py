"""``compare`` on a model whose two answers are known."""

import io
import math

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
from fastprompt._switches import is_off  # noqa: E402
from fastprompt.models.differences import Difference, tensors  # noqa: E402


class Model(torch.nn.Module):
    """Gives ``before`` inside ``disabled``, else ``after``, and counts its calls."""

    def __init__(self, before, after):
        super().__init__()
        self.answers, self.calls = (after, before), []

    def forward(self, *arguments, **named):
        assert not torch.is_grad_enabled()
        self.calls.append((is_off(), arguments, named))
        return self.answers[is_off()]


def compare(before, after, inputs=(), **options):
    return fp.compare(Model(before, after).eval(), inputs, **options).outputs


def test_numbers_of_an_output():
    (found,) = compare(torch.tensor([[1.0, -4.0]]), torch.tensor([[1.5, -4.0]]))
    assert (found.name, found.shape) == ("", (1, 2))
    assert (found.max_abs, found.relative) == (0.5, 0.125)
    assert found.cosine == pytest.approx((1.5 + 16) / math.sqrt(17 * 18.25))
    assert found.iou is None


@pytest.mark.parametrize(
    ("before", "after", "relative"),
    [(0.0, 0.0, 0.0), (0.0, 1.0, math.inf), (math.inf, math.inf, 0.0), (1.0, math.nan, math.nan)],
)
def test_corners(before, after, relative):
    (found,) = compare(torch.full((1, 2), before), torch.full((1, 2), after))
    assert found.relative == pytest.approx(relative, nan_ok=True)
    if before == after:
        assert found.cosine == 1.0


MASKS = (
    torch.tensor([[[[1.0, 1.0, -1.0]], [[-1.0, -1.0, -1.0]]]]),
    torch.tensor([[[[1.0, -1.0, 0.5]], [[-1.0, -1.0, -9.0]]]]),
)


def test_masks():
    """One of the three pixels in either mask; both empty."""
    (found,) = compare({"pred_masks": MASKS[0]}, {"pred_masks": MASKS[1]})
    assert found.ious == pytest.approx([1 / 3, 1.0])
    assert found.iou == pytest.approx(2 / 3)
    assert found.cosine is None
    (found,) = compare({"low_res_logits": MASKS[0]}, {"low_res_logits": MASKS[1]}, threshold=0.7)
    assert found.ious == [0.5, 1.0]
    (found,) = compare(MASKS[0] > 0, MASKS[1] > 0)
    assert found.ious == pytest.approx([1 / 3, 1.0])
    assert found.max_abs == 1
    (found,) = compare(*MASKS, masks=[""])
    assert found.iou == pytest.approx(2 / 3)
    (found,) = compare(*MASKS)  # nothing says that these are masks
    assert (found.iou, len(found.cosines)) == (None, 1)
    (found,) = compare({"logits": torch.ones(1, 5)}, {"logits": torch.ones(1, 5)})  # of classes
    assert found.iou is None


def test_batches_and_forms():
    model = Model(torch.zeros(1), torch.ones(1)).eval()
    batches = [(1, 2), {"a": 3}, torch.ones(4)]
    found = fp.compare(model, batches, rounds=3)
    assert found.outputs[0].max_abs == 1
    assert len(found.before) == len(found.after) == 3
    assert sum(off for off, _, _ in model.calls) == len(model.calls) / 2 == 3 + 3 * 3
    assert [call[1:] for call in model.calls[:4]] == 2 * [((1, 2), {})] + 2 * [((), {"a": 3})]
    timed = [off for off, _, _ in model.calls[6:]]
    assert timed == [True, False] * 3 + [False, True] * 3 + [True, False] * 3  # in turn
    model.calls.clear()
    fp.compare(model, [1, 2], call=lambda m, x: m(x, more=x), rounds=1)
    assert [call[1:] for call in model.calls[-2:]] == 2 * [((2,), {"more": 2})]


def test_larger_of_batches():
    answers = iter([1.0, 2.0, 3.0, 7.0, *[0.0] * 4])  # before and after of two batches, then their times

    def call(model, batch):
        return torch.tensor([next(answers)])

    found = fp.compare(torch.nn.Identity().eval(), [0, 0], call=call, rounds=1).outputs[0]
    assert (found.max_abs, found.largest, found.cosines) == (4.0, 3.0, [1.0, 1.0])


def test_names_of_tensors():
    from transformers.utils import ModelOutput

    x = torch.ones(1)
    nested = {"a": x, "b": [x, (x, None)], "c": ModelOutput(d=x), "e": 3}
    assert [name for name, _ in tensors(nested)] == ["a", "b[0]", "b[1][0]", "c.d"]
    assert [name for name, _ in tensors([{"masks": x}])] == ["[0].masks"]
    assert [name for name, _ in tensors(Difference("", x))] == ["shape"]


def test_text(capsys):
    found = fp.compare(Model({"pred_masks": MASKS[0]}, {"pred_masks": MASKS[1]}).eval(), [()], rounds=1)
    found.before, found.after = [10.0, 30.0, 20.0], [4.0, 8.0, 5.0]
    lines = str(found).splitlines()
    assert lines[0].split() == ["output", "shape", "max", "|difference|", "relative", "IoU", "worst", "cosine"]
    assert lines[1].split() == ["pred_masks", "(1,", "2,", "1,", "3)", "8.00e+00", "8.0e+00", "0.6667", "0.3333"]
    assert lines[4].split() == ["before", "10.0", "20.0"]
    assert lines[5].split() == ["after", "4.0", "5.0"]
    assert lines[6] == "2.50 times, 3 rounds interleaved"
    assert found.ratio == 2.5
    assert capsys.readouterr() == ("", "")  # no bar off a terminal


def test_bar_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    compare(torch.ones(1), torch.ones(1), rounds=2)
    assert "2/3 round 2" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("model", 1), {}, TypeError, "model must be a torch.nn.Module, got str"),
        ((torch.nn.Identity(), 1), {}, ValueError, "model must be in eval mode"),
        ((torch.nn.Identity().eval(), []), {}, ValueError, "inputs must hold at least one batch"),
        (
            (torch.nn.Identity().eval(), torch.ones(1)),
            {"rounds": 0},
            ValueError,
            "rounds must be a positive int, got 0",
        ),
        (
            (torch.nn.Identity().eval(), torch.ones(1)),
            {"masks": ["m"]},
            ValueError,
            r"masks must name outputs, of \[''\]",
        ),
        ((Model(torch.ones(1), torch.ones(2)).eval(), ()), {}, ValueError, "the same tensors with and without"),
        ((Model(1, 2).eval(), ()), {}, ValueError, "the same tensors with and without"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        fp.compare(*arguments, **options)


@torch.no_grad()
def test_accelerated_without_pruning():
    pytest.importorskip("transformers")
    from hosts import embedding, points, sam

    model = fp.accelerate(sam(size=8))
    inputs = {"image_embeddings": embedding(size=8), "input_points": points(1, 1, 1) / 8}
    found = {x.name: x for x in fp.compare(model, inputs, rounds=1).outputs}
    assert found.keys() == {"iou_scores", "pred_masks"}
    assert found["pred_masks"].iou > 0.999
    assert found["pred_masks"].relative < 1e-5
