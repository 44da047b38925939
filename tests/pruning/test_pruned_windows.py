"""Image encoders that drop windows, against dense ones."""

import copy
import pickle
import re

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from pruned_hosts import (  # noqa: E402, F401
    ENCODERS,
    SIZE,
    WINDOW,
    close,
    embedding,
    kept_windows,
    masked,
    one_thread,
    parts,
    pictures,
)

WINDOWS = 25


@pytest.fixture(params=ENCODERS.values(), ids=ENCODERS)
def encoder(request):
    return request.param()


def dense(encoder, x):
    with fp.disabled():
        return encoder(x)


@pytest.mark.parametrize("at", [0, 1, 3])
@torch.no_grad()
def test_all_windows_equal_dense(encoder, at):
    x = pictures()
    want = encoder(x)
    fp.accelerate(encoder, prune=fp.Prune(keep=1.0, at=at))
    got = encoder(x)
    close(embedding(got), embedding(want))
    if hasattr(want, "intermediate_embeddings"):
        assert len(got.intermediate_embeddings) == 2
        for a, b in zip(got.intermediate_embeddings, want.intermediate_embeddings, strict=True):
            close(a, b)


@pytest.mark.parametrize(("at", "keep"), [(0, 0.04), (0, 0.64), (1, 0.36), (2, 0.36), (3, 0.97)])
@torch.no_grad()
def test_against_masked_dense(encoder, at, keep):
    """Each image keeps its own windows; kept tokens see kept ones only, the others keep their value."""
    x = pictures(3)
    tokens, layers, behind = parts(encoder)
    start = tokens(x)
    before = start
    for layer in layers[:at]:
        before = layer(before)
    prune = fp.Prune(keep=keep, at=at)
    kept = kept_windows(before.norm(dim=-1), prune.count(WINDOWS))
    assert keep < 0.3 or keep > 0.9 or not torch.equal(kept[0], kept[1])
    want = masked(encoder, start, kept, at)
    fp.accelerate(encoder, prune=prune)
    got = encoder(x)
    close(embedding(got), behind(want[-1]))
    if hasattr(got, "intermediate_embeddings"):
        close(torch.stack(got.intermediate_embeddings), torch.stack([want[1], want[3]]))


@torch.no_grad()
def test_kept_windows_are_exact(encoder):
    """Windows know nothing of each other: before the first global block the kept ones have the dense values."""
    tokens, layers, _ = parts(encoder)
    windowed = torch.nn.ModuleList(layer for layer in layers if layer.window_size)
    setattr(encoder, "layers" if hasattr(encoder, "layers") else "blocks", windowed)
    x = tokens(pictures())
    want = windowed[1](windowed[0](x))
    fp.accelerate(encoder, prune=fp.Prune(keep=0.4, at=0))
    kept = kept_windows(x.norm(dim=-1), 10)
    got, _ = encoder.through(x)
    close(got[kept], want[kept])
    assert torch.equal(got[~kept], x[~kept])


class Adapted(torch.nn.Module):
    """What fine-tuning libraries put in the place of a linear layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.more = layer, torch.nn.Linear(32, 96)

    def forward(self, x):
        return self.layer(x) + self.more(x)


@torch.no_grad()
def test_adapted_layers(encoder):
    torch.manual_seed(0)
    for layer in parts(encoder)[1]:
        layer.attn.qkv = Adapted(layer.attn.qkv)
    want = embedding(encoder(pictures()))
    fp.accelerate(encoder, prune=fp.Prune(keep=1.0, at=0))
    close(embedding(encoder(pictures())), want)


@torch.no_grad()
def test_prompt(encoder):
    """The window of a click is kept first, then those that have a token nearest to it."""
    x = pictures()
    fp.accelerate(encoder, prune=fp.Prune(keep=0.04, at=0, score="prompt"))
    tokens = parts(encoder)[0](x)
    for points, corners in (
        ([[[8, 8]], [[16 * 13 - 1, 16 * 13 - 1]]], [(0, 0), (12, 12)]),  # one for each image
        ([[100.0, 8.0]], [(0, 6), (0, 6)]),  # x first
    ):
        with fp.prompt(points=points):
            kept = encoder.select(tokens)
        for part, corner in zip(kept.images, corners, strict=True):
            assert tuple(kept.coordinates[part][0].tolist()) == corner
            assert bool((kept.coordinates[part] // WINDOW == torch.tensor(corner) // WINDOW).all())
    fp.accelerate(encoder, prune=fp.Prune(keep=0.16, at=0, score="prompt"))
    boxes = [[16 * 2.0, 16 * 5.0, 16 * 4.0, 16 * 7.0]]  # rows 5 and 6, columns 2 and 3
    for form in (boxes, torch.tensor([boxes])):
        with fp.prompt(boxes=form):
            kept = encoder.select(tokens)
            result = embedding(encoder(x))
        places = {tuple(p) for p in (kept.coordinates[kept.images[1]] // WINDOW).tolist()}
        assert places == {(1, 0), (1, 1), (2, 0), (2, 1)}
    with fp.prompt(boxes=boxes + [[float("nan")] * 4]):
        assert torch.equal(embedding(encoder(x)), result)
    with pytest.raises(ValueError, match=r"inside `with fastprompt.prompt"):
        encoder(x)


@torch.no_grad()
def test_function_and_ties(encoder):
    seen = []

    def score(tokens, coordinates):
        seen.append((tuple(tokens.shape), tuple(coordinates.shape), coordinates[SIZE].tolist()))
        return -((coordinates - coordinates.max() // 2) ** 2).sum(1).expand(len(tokens), -1)

    fp.accelerate(encoder, prune=fp.Prune(keep=0.04, at=0, score=score))
    tokens = parts(encoder)[0](pictures())
    assert bool((encoder.select(tokens).coordinates // WINDOW == 2).all())  # the middle
    assert seen == [((2, SIZE * SIZE, 32), (SIZE * SIZE, 2), [1, 0])]
    fp.accelerate(encoder, prune=fp.Prune(keep=0.08, at=0, score=lambda t, c: t.new_zeros(t.shape[:2])))
    where = encoder.select(tokens).coordinates.view(2, -1, 2)
    assert torch.equal(where[0], where[1])
    assert {tuple(p) for p in (where[0] // WINDOW).tolist()} == {(0, 0), (0, 1)}
    for bad in (lambda t, c: t, lambda t, c: 0.0):
        fp.accelerate(encoder, prune=fp.Prune(keep=0.5, at=0, score=bad))
        with pytest.raises(ValueError, match=re.escape(f"score must give a tensor of shape (2, {SIZE * SIZE})")):
            encoder(pictures())


def test_gradient(encoder):
    x = pictures().requires_grad_()
    leaves = [x, *encoder.parameters()]
    tokens, _, behind = parts(encoder)
    start = tokens(x)
    kept = kept_windows(start.detach().norm(dim=-1), 9)
    wanted = torch.autograd.grad(behind(masked(encoder, start, kept, 0)[-1]).square().sum(), leaves)
    fp.accelerate(encoder, prune=fp.Prune(keep=0.36, at=0))
    result = embedding(encoder(x)).square().sum()
    for got, want in zip(torch.autograd.grad(result, leaves), wanted, strict=True):
        assert float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())


@torch.no_grad()
def test_keys_pickles_restore(encoder):
    x, kind = pictures(), type(encoder)
    keys, want = list(encoder.state_dict()), embedding(encoder(x))
    fp.accelerate(encoder)
    assert not fp.report(encoder).pruned  # never by itself
    assert type(encoder) is kind
    prune = fp.Prune(keep=0.5, at=1)
    assert fp.accelerate(encoder, prune=prune) is encoder
    got, text = embedding(encoder(x)), str(fp.report(encoder))
    assert isinstance(encoder, kind)
    assert not torch.equal(got, want)
    for _ in range(2):
        fp.accelerate(encoder)  # a call without one leaves it
        fp.accelerate(encoder, prune=prune)
        assert str(fp.report(encoder)) == text
        assert torch.equal(embedding(encoder(x)), got)
    assert list(encoder.state_dict()) == keys
    for clone in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(embedding(clone(x)), got)
        assert str(fp.report(clone)) == text
    close(embedding(dense(encoder, x)), want)
    fp.restore(encoder)
    assert type(encoder) is kind
    assert "_fastprompt_prune" not in encoder.__dict__
    assert torch.equal(embedding(encoder(x)), want)


@torch.no_grad()
def test_report(encoder):
    fp.accelerate(encoder, prune=fp.Prune(keep=0.4, at=1))
    found = fp.report(encoder)
    assert list(found.pruned) == [""]
    assert "" not in found.replaced
    pruned = found.pruned[""]
    assert pruned.windows == (10, 25)
    assert pruned.tokens == (169, 68, 68, 68)
    # Multiplications of a token: 4 C^2 + 2 C 48 in the linear layers; 2 C for each pair of tokens. Windows have 9, 3, 3
    # and 1 tokens. Patches, and the two convolutions of the neck.
    linear, inside, outside = 4 * 32**2 + 2 * 32 * 48, 16 * 81 + 8 * 9 + 1, 169 * (3 * 256 * 32 + 32 * 8 + 9 * 8 * 8)
    layer = lambda part: 169 * linear * part + 64 * inside * part  # noqa: E731
    whole = lambda part: 169 * linear * part + 64 * (169 * part) ** 2  # noqa: E731
    share = outside + layer(1) + whole(0.4) + layer(0.4) + whole(0.4)
    assert pruned.share == pytest.approx(share / (outside + 2 * layer(1) + 2 * whole(1)))
    assert "pruned    (the model): keep 0.4 from block 1 on by norm: 10 of 25 windows" in str(found)


@pytest.mark.parametrize("size", [(9, 9), (10, 7), (2, 14)], ids=str)
@torch.no_grad()
def test_pictures_of_another_size(size):
    """Without absolute positions an encoder takes any: tables are interpolated as the host does it."""
    encoder = ENCODERS["segment_anything without bias"]()
    x = pictures()[..., : 16 * size[0], :].repeat(1, 1, 1, 2)[..., : 16 * size[1]]
    want = encoder(x)
    fp.accelerate(encoder, prune=fp.Prune(keep=1.0, at=1))
    close(encoder(x), want)


@torch.no_grad()
def test_one_image_at_a_time(encoder):
    """An image does not depend on the others in its batch."""
    x = pictures(3)
    fp.accelerate(encoder, prune=fp.Prune(keep=0.3, at=0))
    together = embedding(encoder(x))
    for n in range(3):
        close(embedding(encoder(x[n : n + 1])), together[n : n + 1])


@torch.no_grad()
def test_half_precision_and_autocast(encoder):
    x = pictures()
    fp.accelerate(encoder, prune=fp.Prune(keep=0.5, at=0, score="prompt"))
    with fp.prompt(points=[[50, 60]]):
        want = embedding(encoder(x))
        with torch.autocast("cpu", torch.bfloat16):
            lowered = embedding(encoder(x))
        half = embedding(encoder.to(torch.bfloat16)(x.bfloat16()))
    assert half.dtype == torch.bfloat16
    for got in (half, lowered):
        assert float((got.float() - want).abs().max()) < 0.05 * float(want.abs().max())


@torch.no_grad()
def test_backends_and_instruction_sets(encoder, isa):
    x = pictures(1)
    fp.accelerate(encoder, prune=fp.Prune(keep=0.5, at=0))
    got = embedding(encoder(x))
    with fp.backend("reference"):
        want = embedding(encoder(x))
    close(got, want)
    assert not torch.equal(embedding(dense(encoder, x)), want)
