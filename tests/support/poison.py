"""Memory that is NaN until a kernel fills it."""

import numpy as np

empty = np.empty


def poisoned(shape, dtype=float, *args, **options):
    # No docstring: numpy.ma rewrites that of np.empty when it is imported.
    out = empty(shape, dtype, *args, **options)
    if out.dtype.kind == "f":
        out.fill(np.nan)
    return out
