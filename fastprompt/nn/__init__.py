"""Drop-in modules: subclasses of their hosts, with the same parameters, used by :func:`fastprompt.accelerate`; and
``DistMaps``, which has a host in every repository that was made of RITM."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "DistMaps":  # needs torch
        from fastprompt.nn.dist_maps import DistMaps

        return DistMaps
    raise AttributeError(f"module 'fastprompt.nn' has no attribute {name!r}")
