"""Pictures with an object each, and a predictor that follows the clicks."""

import numpy as np
from scipy import ndimage


def samples(count=6, shape=(24, 33)):
    rng = np.random.default_rng(5)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 3) for _ in range(count)]
    return [(field.astype(np.float32), field > np.quantile(field, 0.7)) for field in fields]


def disks(image, points, labels):
    """A probability: the nearest click wins, up to 9 pixels away."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    near = {}
    for sign in (0, 1):
        clicks = points[labels == sign]
        far = [np.hypot(x - a, y - b) for a, b in clicks] or [np.full(image.shape, 9.0)]
        near[sign] = np.minimum(np.min(far, axis=0), 9.0)
    return (near[0] / (near[0] + near[1] + 1e-9)).astype(np.float32)
