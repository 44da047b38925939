"""timm's vision transformers that drop tokens, against dense ones."""

import pickle

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
from pruned_hosts import one_thread  # noqa: E402, F401
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

DEPTH, GRID = 4, (3, 5)
HOSTS = {
    "class token": {},
    "registers": {"reg_tokens": 3, "qkv_bias": True, "init_values": 0.5, "qk_norm": True},
    "patches only": {"class_token": False, "global_pool": "avg"},
    "any size": {"dynamic_img_size": True, "no_embed_class": True, "pre_norm": True},
}


def vit(name="class token"):
    settings = {"patch_size": 8, "embed_dim": 32, "depth": DEPTH, "num_heads": 2, "num_classes": 6}
    torch.manual_seed(0)
    model = VisionTransformer(img_size=(8 * GRID[0], 8 * GRID[1]), **settings | HOSTS[name]).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p[0].numel() ** -0.5 if p.dim() > 1 else 0.3))
    return model


@pytest.fixture(params=HOSTS)
def model(request):
    return vit(request.param)


def pictures(batch=3, grid=GRID):
    return torch.randn(batch, 3, 8 * grid[0], 8 * grid[1], generator=torch.Generator().manual_seed(1))


def tokens(model, x):
    return model.norm_pre(model._pos_embed(model.patch_embed(x)))


def masked(model, x, at, keep, score=None):
    """All tokens go through all blocks; those that are dropped are hidden by a mask, and get their value back."""
    prefix, x = model.num_prefix_tokens, tokens(model, x)
    for block in model.blocks[:at]:
        x = block(x)
    patches = x[:, prefix:]
    found = patches.norm(dim=-1) if score is None else score(x[:, :1], patches)
    count = -int(-keep * patches.shape[1] // 1)
    kept = torch.ones(x.shape[:2], dtype=torch.bool)
    kept[:, prefix:] = False
    for image, numbers in zip(kept, found.tolist(), strict=True):
        for n in sorted(range(len(numbers)), key=lambda n: (-numbers[n], n))[:count]:
            image[prefix + n] = True
    base = x
    for block in model.blocks[at:]:
        x = block(x, attn_mask=kept[:, None, None]).where(kept[..., None], base)
    return model.norm(x)


@pytest.mark.parametrize(("at", "keep"), [(0, 0.1), (1, 0.4), (2, 0.8), (3, 0.6)])
@torch.no_grad()
def test_against_masked(model, at, keep):
    x = pictures()
    want = masked(model, x, at, keep)
    head = model.forward_head(want)
    fp.accelerate(model, prune=fp.Prune(keep=keep, at=at))
    torch.testing.assert_close(model.forward_features(x), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(x), head, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_all_tokens_change_no_bit(model):
    x = pictures()
    want = model.forward_features(x)
    fp.accelerate(model, prune=fp.Prune(keep=1.0, at=1))
    assert torch.equal(model.forward_features(x), want)


@pytest.mark.parametrize("name", ["class token", "registers"])
@torch.no_grad()
def test_class_token_and_function(name):
    x, cosine = pictures(), lambda cls, patches: torch.cosine_similarity(cls, patches, dim=-1)
    model = vit(name)
    want = masked(model, x, 2, 0.4, cosine)
    fp.accelerate(model, prune=fp.Prune(keep=0.4, at=2, score="cls"))
    torch.testing.assert_close(model.forward_features(x), want, rtol=1e-5, atol=1e-5)
    with fp.disabled():
        want = masked(model, x, 1, 0.2, lambda cls, patches: -(torch.arange(15) - 7).abs().expand(3, -1))
    seen = []

    def middle(patches, coordinates):
        seen.append(coordinates)
        return -(coordinates[:, 0] * 5 + coordinates[:, 1] - 7).abs().expand(len(patches), -1)

    fp.accelerate(model, prune=fp.Prune(keep=0.2, at=1, score=middle))
    torch.testing.assert_close(model.forward_features(x), want, rtol=1e-5, atol=1e-5)
    assert seen[0].tolist() == [[y, x] for y in range(3) for x in range(5)]


@torch.no_grad()
def test_prompt_and_another_size():
    model = vit("any size")
    x = pictures(2, (4, 6))
    near = torch.zeros(2, 24, dtype=torch.bool)
    near[0, [0, 1, 6]] = near[1, [17, 22, 23]] = True
    want = masked(model, x, 1, 3 / 24, lambda cls, patches: near.float())
    fp.accelerate(model, prune=fp.Prune(keep=3 / 24, at=1, score="prompt"))
    with fp.prompt(points=torch.tensor([[[4, 4]], [[44, 28]]])):  # (x, y): the centres of two corners
        torch.testing.assert_close(model.forward_features(x), want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"fastprompt\.prompt"):
        model(x)
    with fp.prompt(points=torch.zeros(3, 1, 2)), pytest.raises(ValueError, match="points must be"):
        model(x)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient(model, checkpointing):
    """In double precision: some of these gradients are zero but for rounding."""
    x, model = pictures().double().requires_grad_(), model.double()
    leaves = [x, *(p for n, p in model.named_parameters() if not n.startswith(("head", "fc_norm")))]
    wanted = torch.autograd.grad(masked(model, x, 1, 0.4).square().sum(), leaves)
    fp.accelerate(model, prune=fp.Prune(keep=0.4, at=1)).train()
    model.set_grad_checkpointing(checkpointing)
    result = model.forward_features(x).square().sum()
    for got, want in zip(torch.autograd.grad(result, leaves), wanted, strict=True):
        assert float((got - want).abs().max()) <= 1e-9 * float(want.abs().max()) + 1e-12


@torch.no_grad()
def test_keys_pickles_restore_report(model):
    x, want, keys = pictures(), model(pictures()), list(model.state_dict())
    prune = fp.Prune(keep=0.5, at=1)
    fp.accelerate(model)
    assert torch.equal(model(x), want)
    fp.accelerate(model, prune=prune)
    got, prefix = model(x), model.num_prefix_tokens
    assert not torch.equal(got, want)
    assert torch.equal(fp.accelerate(fp.accelerate(model, prune=prune))(x), got)
    assert list(model.state_dict()) == keys
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), got)
    pruned = fp.report(model).pruned[""]
    assert pruned.tokens == (15 + prefix, 8 + prefix, 8 + prefix, 8 + prefix)
    work = [n * 12 * 32**2 + 2 * n * n * 32 for n in pruned.tokens]
    patches = 15 * 3 * 64 * 32
    assert pruned.share == pytest.approx((patches + sum(work)) / (patches + 4 * work[0]))
    with fp.disabled():
        assert torch.equal(model(x), want)
    with fp.backend("reference"):
        torch.testing.assert_close(model(x), got)
    fp.restore(model)
    assert type(model) is VisionTransformer
    assert torch.equal(model(x), want)


@torch.no_grad()
def test_half_precision(model):
    x = pictures()
    fp.accelerate(model, prune=fp.Prune(keep=0.5, at=0, score="prompt"))
    with fp.prompt(points=[[9, 9]]):
        want, got = model(x), model.to(torch.bfloat16)(x.bfloat16())
    assert got.dtype == torch.bfloat16
    assert float((got.float() - want).abs().max()) < 0.05 * float(want.abs().max())


@pytest.mark.parametrize("name", ["registers", "any size"])
@torch.no_grad()
def test_compile_and_export(name):
    """k is fixed, so all of it is one graph."""
    model, x = vit(name), pictures()
    fp.accelerate(model, prune=fp.Prune(keep=0.5, at=1))
    want = model(x)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_compiled_models_follow_the_prompt():
    model, x = vit(), pictures()
    fp.accelerate(model, prune=fp.Prune(keep=0.3, at=1, score="prompt"))
    compiled, results = torch.compile(model, backend="aot_eager"), []
    for point in ([1, 1], [30, 20]):
        with fp.prompt(points=[point]):
            results.append(model(x))
            torch.testing.assert_close(compiled(x), results[-1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(*results)


@torch.no_grad()
def test_calls_of_the_host(monkeypatch):
    monkeypatch.setattr("fastprompt.nn.parts.host_path._said", set())
    model, x = vit(), pictures()
    want = model.forward_intermediates(x, indices=[1, 3])
    mask = torch.ones(16, 16, dtype=torch.bool)
    fp.accelerate(model, prune=fp.Prune(keep=0.2, at=1))
    with pytest.warns(UserWarning, match="intermediate features are those of all tokens"):
        got = model.forward_intermediates(x, indices=[1, 3])
    torch.testing.assert_close(got, want)
    with pytest.warns(UserWarning, match="an attention mask is given"):
        torch.testing.assert_close(model(x, attn_mask=mask), model.forward_head(want[0]), rtol=1e-5, atol=1e-5)
    settings = {"img_size": 24, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "patch_drop_rate": 0.5}
    model = fp.accelerate(VisionTransformer(**settings), prune=fp.Prune(keep=0.2, at=1))
    with pytest.warns(UserWarning, match="patches are dropped in training"):
        model(pictures(1, (3, 3)))
    assert model.eval()(pictures(1, (3, 3))).shape == (1, 1000)


@pytest.mark.parametrize(
    ("name", "prune", "message"),
    [
        ("class token", {"at": 4}, "at must be below the number of blocks 4, got 4"),
        ("patches only", {"score": "cls"}, "needs a class token"),
    ],
)
def test_unsupported(name, prune, message):
    with pytest.raises(ValueError, match=message):
        fp.accelerate(vit(name), prune=fp.Prune(**{"keep": 0.5, "at": 0} | prune))
