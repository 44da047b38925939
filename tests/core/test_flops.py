"""What torch's counter of operations says of the operators: as of their formulas, and of a host as a whole."""

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402


def count(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_by_formula():
    q, k = torch.rand(1, 6, 2, 16), torch.rand(1, 10, 2, 16)
    read = lambda: fp.memory_attention(q, k, k)  # noqa: E731
    assert count(read) == 2 * 2 * 2 * 6 * 10 * 16  # two products of two heads
    rows = torch.rand(1, 2, 3)
    assert count(lambda: fp.text_similarity_map(torch.rand(1, 3, 4, 4), rows[0])) == 2 * 2 * 3 * 16
    q.requires_grad_()
    assert count(lambda: fp.memory_attention(q, k, k).sum().backward()) > 2 * count(read)


def test_operators_without_a_formula():
    from fastprompt.ops.encoder.operators import normalised_linear, residual_mlp

    x, w, wide = torch.rand(1, 4, 16), torch.rand(16, 16), torch.rand(32, 16)
    b, b2 = torch.rand(16), torch.rand(32)
    assert count(lambda: normalised_linear(x, [], 0.0, [w, b])) == 2 * 4 * 16 * 16
    mlp = [wide, b2, wide.T.contiguous(), b]
    assert count(lambda: residual_mlp(x, x, [w, b], [b, b], 1e-6, mlp, "gelu")) == 2 * 4 * 16 * (16 + 32 + 32)


@pytest.mark.filterwarnings("ignore:fastprompt.*takes the host's path")
def test_a_model(monkeypatch):
    """Inside a counter it takes its host's path; the operators of the drop-in, in two forms, count for as much."""
    pytest.importorskip("transformers")
    from hosts import PROMPTS, embedding, sam

    model, given = sam(size=16).requires_grad_(False), {"image_embeddings": embedding(size=16), **PROMPTS["point"]}
    want = count(lambda: model(**given))
    fp.accelerate(model)
    assert count(lambda: model(**given)) == want
    monkeypatch.setattr("fastprompt.nn.parts.known.transformed", lambda *tensors: None)
    assert count(lambda: model(**given)) == pytest.approx(want, rel=0.02)
    monkeypatch.setattr("fastprompt.ops.decoder.low_rank.pays", lambda *sizes: False)
    given["image_embeddings"] = given["image_embeddings"] + 1
    assert count(lambda: model(**given)) == pytest.approx(want, rel=0.02)
