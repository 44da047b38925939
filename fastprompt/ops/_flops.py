"""What ``torch.utils.flop_counter`` counts for the operators: the products of their formulas, as of any module."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

Fn = Callable[..., Any]


def counted(overload: Any, flops: Fn | None, formula: Fn | None) -> None:
    """``flops(*args)``, or what is counted of the formula."""
    if flops is None and formula is None:
        return  # no products
    known: Any = register_flop_formula(overload.overloadpacket, get_raw=True)
    known(lambda *args, out_val=None: flops(*args) if flops else of_formula(formula, args))


def of_formula(formula: Any, args: Any) -> int:
    """Without a number: tensors of shapes alone."""
    given = pytree.tree_map_only(torch.Tensor, lambda x: x.to("meta"), args)
    with FlopCounterMode(display=False) as counter:
        formula(*given)
    return int(counter.get_total_flops())


__all__ = ["counted"]
