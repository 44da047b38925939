"""Modules. ``hosts``: drop-ins, which :func:`fastprompt.accelerate` uses; ``parts``: what they share; ``tiny_click``: a
network of ours; and ``DistMaps``, which every repository that was made of RITM has a copy of."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "DistMaps":  # needs torch
        from fastprompt.nn.dist_maps import DistMaps

        return DistMaps
    raise AttributeError(f"module 'fastprompt.nn' has no attribute {name!r}")
