"""``tiny_click``: the small click model of this package, with its weights."""

from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = Path(__file__).with_name("tiny_click.npz")


def tiny_click(*, pretrained: bool = True) -> Any:
    """A network of 0.7 M parameters that segments what was clicked; small enough to ship with this package.

    It was trained on polygons of texture, not on photographs: a model to try things on, above all what pruning costs.
    What it can and cannot do, with figures: docs/tiny_click.md.

    Args:
        pretrained: with the weights of this package; False: random ones.

    Returns:
        :class:`fastprompt.nn.tiny_click.TinyClick`, an ``nn.Module`` in evaluation mode on the CPU.
        ``model(image, points, labels, boxes=None, keep=1.0, at=1, score="click")``: (B, 3, 96, 96) RGB within [0, 1],
        clicks (B, P, 2) as (x, y) in pixels, labels (B, P), 1 on the object, 0 off it, -1 no click, to logits
        (B, 1, 96, 96). ``keep``, ``at``, ``score`` prune its tokens.
        ``model.predict(image, points, labels)``: uint8 (H, W) or (H, W, 3) of any size to a bool mask (H, W).

    Raises:
        ImportError: torch is not installed.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> picture = np.full((60, 80, 3), 30, np.uint8)
        >>> picture[15:45, 20:50] = 220, 60, 40
        >>> mask = fp.models.tiny_click().predict(picture, points=[(35, 30)], labels=[1])
        >>> mask.shape, bool(mask[30, 35]), bool(mask[5, 5])
        ((60, 80), True, False)

    Source: the architecture follows Liu et al., SimpleClick, 2023; formulas only.
    """
    try:
        import torch
    except ImportError:
        raise ImportError("tiny_click needs torch; run: pip install torch") from None
    from fastprompt.nn.tiny_click import TinyClick

    model = TinyClick()
    if pretrained:
        with np.load(WEIGHTS, allow_pickle=False) as arrays:
            model.load_state_dict({name: torch.from_numpy(arrays[name]).float() for name in arrays.files})
    return model.eval()
