"""PANet's functions, with its signatures: ``from fastprompt.compat.panet import getFeatures, calDist``.

In the host they are methods of ``FewShotSeg``: assign them to it, ``FewShotSeg.calDist = staticmethod(calDist)``. PANet
has no licence: these are its formulas, not its code. torch tensors or NumPy arrays.
"""

from typing import Any

from fastprompt.ops.pooling.means import masked_average_pool
from fastprompt.ops.pooling.similarity import cosine_prototype_map

__all__ = ["calDist", "getFeatures"]


def getFeatures(fts: Any, mask: Any) -> Any:
    """(1, C): the mean of ``fts`` (1, C, h, w), enlarged to the ``mask`` (1, H, W), over it; its area + 1e-5.

    Nothing is enlarged: the host does it again for every way, shot, foreground and background.
    """
    return masked_average_pool(fts, mask[None], preset="panet")[:, 0]


def calDist(fts: Any, prototype: Any, scaler: float = 20) -> Any:
    """(N, h, w): the cosine of ``fts`` (N, C, h, w) and one ``prototype`` (1, C), times ``scaler``."""
    return cosine_prototype_map(fts, prototype, scale=scaler)[:, 0]
