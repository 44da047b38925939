"""PFENet's and PANet's functions by their signatures, each against its formula, written anew here."""

import pytest

from fastprompt.compat import panet, pfenet

torch = pytest.importorskip("torch")
F = torch.nn.functional


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blob(batch, size):
    mask = torch.zeros(batch, 1, size, size)
    mask[:, :, size // 4 : size // 2 + 3, size // 3 :] = 1
    mask[:, :, size // 4, size // 3] = 255  # PASCAL's border
    return mask


def test_weighted_gap():
    features, mask = draw(2, 24, 15, 15), (blob(2, 113) == 1).float()
    small = F.interpolate(mask, features.shape[-2:], mode="bilinear", align_corners=True)
    height, width = features.shape[-2:]
    area = F.avg_pool2d(small, (height, width)) * height * width + 0.0005
    want = F.avg_pool2d(features * small, (height, width)) * height * width / area
    for given in (small, mask):
        got = pfenet.Weighted_GAP(features, given)
        assert got.shape == (2, 24, 1, 1)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert (pfenet.Weighted_GAP(features, 0 * mask) == 0).all()


@pytest.mark.parametrize("shots", [1, 3])
def test_prior(shots):
    query = draw(2, 40, 8, 8).relu()
    supports = [draw(2, 40, 8, 8, seed=k + 1).relu() for k in range(shots)]
    masks = [(blob(2, 57 + 8 * k) == 1).float() for k in range(shots)]
    found = []
    for support, mask in zip(supports, masks, strict=True):
        s = support * F.interpolate(mask, (8, 8), mode="bilinear", align_corners=True)
        q, s = query.flatten(2), s.flatten(2).transpose(1, 2)
        cosine = torch.bmm(s, q) / (torch.bmm(s.norm(2, 2, True), q.norm(2, 1, True)) + 1e-7)
        most = cosine.max(1)[0]
        low, high = most.min(1)[0][:, None], most.max(1)[0][:, None]
        level = ((most - low) / (high - low + 1e-7)).view(2, 1, 8, 8)
        found.append(F.interpolate(level, (15, 15), mode="bilinear", align_corners=True))
    want = torch.cat(found, 1).mean(1)[:, None]
    torch.testing.assert_close(pfenet.prior_mask(query, supports, masks, (15, 15)), want, rtol=0, atol=5e-5)
    with pytest.raises(ValueError, match="mask_list must have a mask for each of"):
        pfenet.prior_mask(query, supports, masks[1:], (15, 15))


def test_get_features():
    features, mask = draw(1, 24, 15, 15), (blob(1, 119)[:, 0] == 1).float()
    large = F.interpolate(features, size=mask.shape[-2:], mode="bilinear")
    want = (large * mask[None]).sum((2, 3)) / (mask[None].sum((2, 3)) + 1e-5)
    got = panet.getFeatures(features, mask)
    assert got.shape == (1, 24)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    numpy = panet.getFeatures(features.numpy(), mask.numpy())
    torch.testing.assert_close(torch.from_numpy(numpy), want, rtol=1e-5, atol=1e-6)


def test_cal_dist_and_the_prediction():
    """Background first, then every way; the largest wins."""
    features, prototypes = draw(3, 24, 15, 15), [draw(1, 24, seed=k + 1) for k in range(3)]
    got = torch.stack([panet.calDist(features, p) for p in prototypes], 1)
    want = torch.stack([F.cosine_similarity(features, p[..., None, None], dim=1) * 20 for p in prototypes], 1)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert torch.equal(got.argmax(1), want.argmax(1))
    torch.testing.assert_close(panet.calDist(features, prototypes[0], 7.0), want[:, 0] / 20 * 7, rtol=1e-5, atol=1e-5)


def test_gradient_of_an_episode():
    """PANet learns through both; the host's graph keeps the enlarged features for it, ours does not."""
    features, mask = draw(1, 12, 6, 6), (blob(1, 47)[:, 0] == 1).float()
    grads = []
    for host in (False, True):
        x = features.double().requires_grad_() if host else features.clone().requires_grad_()
        if host:
            large = F.interpolate(x, size=mask.shape[-2:], mode="bilinear")
            p = (large * mask[None]).sum((2, 3)) / (mask[None].sum((2, 3)) + 1e-5)
            dist = F.cosine_similarity(x, p[..., None, None], dim=1) * 20
        else:
            dist = panet.calDist(x, panet.getFeatures(x, mask))
        dist.square().sum().backward()
        grads.append(x.grad.double())
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)
