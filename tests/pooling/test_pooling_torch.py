"""The pooling operators in torch: gradient, compile, export, registration."""

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

from fastprompt.ops.pooling import formulas  # noqa: E402

F = torch.nn.functional


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def same_gradient(ours, formula, arrays, atol=2e-5):
    """Against autograd through an independent formula in float64."""
    leaves = [x.clone().requires_grad_() for x in arrays]
    wide = [x.double().requires_grad_() for x in arrays]
    out, want = ours(*leaves), formula(*wide)
    torch.testing.assert_close(out.double(), want, rtol=0, atol=atol)
    weight = draw(*out.shape, seed=9)
    found = torch.autograd.grad((out * weight).sum(), leaves)
    wanted = torch.autograd.grad((want * weight).sum(), wide)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("resize", ["features", "mask"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_gradient_of_pooling(resize, align_corners):
    """dF = w dP / S, dm = the enlarged (F dP - P dP) / S, without anything of the mask's size times the channels."""

    def formula(features, mask):
        if resize == "features":
            features = F.interpolate(features, mask.shape[-2:], mode="bilinear", align_corners=align_corners)
        else:
            mask = F.interpolate(mask, features.shape[-2:], mode="bilinear", align_corners=align_corners)
        mask = torch.cat([mask, 1 - mask], 1)
        return torch.einsum("bchw,bmhw->bmc", features, mask) / (mask.sum((2, 3))[..., None] + 1e-3)

    def ours(features, mask):
        options = {"resize": resize, "align_corners": align_corners, "eps": 1e-3, "background": True}
        return torch.cat(fp.masked_average_pool(features, mask, **options), 1)

    same_gradient(ours, formula, (draw(2, 5, 6, 7), draw(2, 3, 20, 31, seed=1).abs()))


def test_no_gradient_of_hard_and_empty_masks():
    features, mask = draw(1, 5, 4, 4).requires_grad_(), draw(1, 2, 16, 16, seed=1).abs()
    mask[:, 1] = 0
    mask.requires_grad_()
    for preset in ("panet", "sgone", "persam", "pfenet"):
        out = fp.masked_average_pool(features, mask, preset=preset)[:, 0]
        grads = torch.autograd.grad(out.sum(), (features, mask), retain_graph=True)
        assert all(g.isfinite().all() for g in grads)
        assert (grads[1] == 0).all() == (preset == "persam")
    fp.masked_average_pool(features, mask > 0.5, preset="panet").sum().backward()
    assert features.grad.isfinite().all()


def cosine_formula(features, rows):
    return 20 * F.cosine_similarity(features[:, None], rows[..., None, None], dim=2)


@pytest.mark.parametrize("count", [2, 11])
def test_gradient_of_similarity(count):
    arrays = draw(2, 6, 4, 5), draw(2, count, 6, seed=1)
    same_gradient(fp.cosine_prototype_map, cosine_formula, arrays)
    share = lambda x, t: (5 * cosine_formula(x, t) / 20).softmax(1)  # noqa: E731
    text = lambda x, t: fp.text_similarity_map(x, t, reduce="softmax", temperature=5.0)  # noqa: E731
    same_gradient(text, share, (arrays[0], arrays[1][0]))


@pytest.mark.parametrize("images", [1, 3])
def test_gradient_of_film(images):
    def formula(x, gamma, beta):
        return gamma[:, :, None, None] * x + beta[:, :, None, None]

    same_gradient(fp.film, formula, (draw(images, 5, 4, 6), draw(3, 5, seed=1), draw(3, 5, seed=2)))


def test_gradcheck_of_the_formulas():
    double = lambda *shape, seed=0: draw(*shape, seed=seed).double().requires_grad_()  # noqa: E731
    features, mask = double(1, 2, 3, 4), (draw(1, 2, 7, 9, seed=1).abs() + 0.1).double().requires_grad_()
    for resize in (0, 1):
        call = lambda f, m: formulas.masked_pool(f, m, resize, False, True, None, 1e-3, 0.0)  # noqa: E731, B023
        assert torch.autograd.gradcheck(call, (features, mask))
    for kind in (0, 1):
        call = lambda f, r: formulas.similarity(f, r, 2.0, 1e-8, 3.0, kind, 0.0)  # noqa: E731, B023
        assert torch.autograd.gradcheck(call, (double(2, 3, 4), double(1, 3, 3, seed=2)))
    for last in (False, True):
        x = double(1, 4, 3) if last else double(1, 3, 4)
        call = lambda *a: formulas.film(*a, last)  # noqa: E731, B023
        assert torch.autograd.gradcheck(call, (x, double(2, 3, seed=1), double(2, 3, seed=2)))


def test_opcheck():
    ops, features = torch.ops.fastprompt, draw(2, 6, 4, 5).requires_grad_()
    mask, rows = draw(2, 3, 9, 11, seed=1).abs(), draw(1, 3, 6, seed=2).requires_grad_()
    flat = draw(2, 6, 20).requires_grad_()
    torch.library.opcheck(ops.masked_pool.default, (features, mask.requires_grad_(), 0, False, True, None, 1e-5, 0.0))
    hard = (mask.detach() * 9).byte()
    torch.library.opcheck(ops.masked_pool.default, (features, hard, 1, True, False, 0.5, 0.0, 1.0))
    torch.library.opcheck(ops.similarity_map.default, (flat, rows, 20.0, 1e-8, 1.0, 0, 0.0))
    torch.library.opcheck(ops.similarity_map.default, (flat, rows, 1.0, 0.0, 9.0, 1, 0.3))
    torch.library.opcheck(ops.similarity_argmax.default, (flat.detach(), rows.detach(), 1.0, 0.0, 9.0, 0.0))
    gamma = draw(2, 6).requires_grad_()
    torch.library.opcheck(ops.film.default, (flat, gamma, gamma, False))
    support, weight = draw(4, 6, 7), draw(4, 7).abs()
    torch.library.opcheck(ops.prior_similarity.default, (flat.detach(), support, weight, 1e-7))


def model(features, masks, text, support):
    fore, back = fp.masked_average_pool(features, masks, preset="panet", background=True)
    maps = fp.cosine_prototype_map(features, torch.cat([back, fore], 1))
    best = fp.text_similarity_map(features, text, reduce="argmax")
    prior = fp.prior_mask(features, support, masks[:, 0], size=(9, 9))
    return fp.film(maps, fore[..., 0].repeat(1, 2), back[..., 0].repeat(1, 2)), best, prior


def arguments():
    return draw(2, 8, 5, 6), draw(2, 2, 21, 22, seed=1).abs(), draw(4, 8, seed=2), draw(2, 8, 5, 6, seed=3)


def test_compile():
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*arguments()), model(*arguments()), strict=True):
        torch.testing.assert_close(got, want)  # torch resizes the prior with other roundings when it compiles
    features, *rest = arguments()
    features.requires_grad_()
    grads = [torch.autograd.grad(f(features, *rest)[0].sum(), features)[0] for f in (model, compiled)]
    torch.testing.assert_close(*grads)


def test_export():
    class Module(torch.nn.Module):
        def forward(self, *x):
            return model(*x)

    exported = torch.export.export(Module(), arguments())
    assert "fastprompt.masked_pool" in str(exported.graph)
    for got, want in zip(exported.module()(*arguments()), model(*arguments()), strict=True):
        assert torch.equal(got, want)
