"""The pruning operators in torch: gradient, compile, export, registration."""

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")


# batch, tokens, channels
@pytest.mark.parametrize("options", [{"keep": 0.5}, {"threshold": 0.0}, {"threshold": 0.0, "pad": 9}], ids=str)
def test_gradient(options):
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 7, generator=g)
    x, base, w = (torch.randn(2, 7, 3, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def call(x, base, w):
        kept, restore = fp.prune_tokens(x, scores, **options)
        return restore(kept * kept) * w, restore(kept.sin(), base), restore(kept, base=0)

    assert torch.autograd.gradcheck(call, (x, base, w))
    assert torch.autograd.gradgradcheck(call, (x, base, w))


def model(x, q, points):
    scores = fp.token_scores(x, prompts=q, points=points, points_weight=0.01, grid=(4, 9))
    t, restore = fp.prune_tokens(x, scores, keep=0.5, stride_mix=0.2, always_keep=torch.arange(36) == 0)
    padded, back = fp.prune_tokens(t, t[..., 0], threshold=0.0, pad=7)
    return restore(back(padded.sin())), restore.indices, restore(t, base=0)


def arguments():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(*s, generator=g) for s in ((2, 36, 8), (1, 3, 8), (2, 1, 2))]


def test_compile():
    x, q, points = arguments()
    expected = model(x, q, points)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(x, q, points), expected, strict=True):
        assert torch.equal(got, want)
    x.requires_grad_()
    grads = [torch.autograd.grad(f(x, q, points)[0].sum(), x)[0] for f in (model, compiled)]
    torch.testing.assert_close(*grads)

    def in_place(x, scores):
        x = x + 0
        t, restore = fp.prune_tokens(x, scores, keep=0.5)
        return restore(t * 2, inplace=True)

    x = x.detach()
    assert torch.equal(
        torch.compile(in_place, fullgraph=True, backend="aot_eager")(x, x[..., 0]), in_place(x, x[..., 0])
    )


def test_export():
    class Module(torch.nn.Module):
        def forward(self, x, q, points):
            return model(x, q, points)

    exported = torch.export.export(Module(), tuple(arguments()))
    assert "fastprompt.prune_rows" in str(exported.graph)
    for got, want in zip(exported.module()(*arguments()), model(*arguments()), strict=True):
        assert torch.equal(got, want)


def test_opcheck():
    x, _, _ = arguments()
    index, y = torch.tensor([[0, 5, -1], [3, 1, 2]]), torch.randn(2, 3, 8, requires_grad=True)
    always, counts, ops = torch.rand(2, 36) > 0.9, torch.tensor([9, 7]), torch.ops.fastprompt
    torch.library.opcheck(ops.scatter_rows_.default, (x.clone(), y.detach(), index))
    x.requires_grad_()
    torch.library.opcheck(ops.prune_rows.default, (x, x[..., 0].detach(), None, None, 9, 0.2))
    torch.library.opcheck(ops.prune_rows.default, (x, x[..., 0].detach(), always, counts, 9, 0.0))
    torch.library.opcheck(ops.gather_rows.default, (x, index))
    torch.library.opcheck(ops.scatter_rows.default, (x, y, index, 36))
    torch.library.opcheck(ops.scatter_rows.default, (None, y, index, 36))
