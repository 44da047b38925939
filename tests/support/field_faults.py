"""Wrong calls of a binding, from a right one."""

import types

import numpy as np
import pytest

from fastprompt import _C


def fields_of(monkeypatch, call, operator, *args):
    """(function, its keywords) of the call into C++ that ``operator`` makes of these arrays."""
    found = []

    def record(name):
        return lambda **given: found.append((getattr(real, name), given)) or -1

    real = call._C
    names = {name: record(name) for name in dir(real) if callable(getattr(real, name))}
    attributes = {name: getattr(real, name) for name in dir(real) if not callable(getattr(real, name))}
    with monkeypatch.context() as patch:
        patch.setattr(call, "_C", types.SimpleNamespace(**attributes | names))
        operator(*args)
    ((function, given),) = found
    return function, given


def longer(x, axis):
    return np.concatenate([x, x.take([0], axis)], axis)


def wrong_arrays(x):
    """(what is wrong, array)"""
    yield "dtype", np.zeros(x.shape, np.int16)
    yield "axes", x[None]
    if x.size > 1:
        yield "strides", np.repeat(x, 2, -1)[..., ::2]


def faults(given, free=()):
    """(label, keywords, names of the fields one of which the error must name). ``free``: fields that may be missing, and
    pairs of field and axis whose size that array alone tells."""
    yield "unknown", given | {"nobody": 1}, ("nobody",)
    for name, x in given.items():
        if name not in free:
            yield f"{name} missing", {k: v for k, v in given.items() if k != name}, (name,)
        if isinstance(x, np.ndarray):
            for what, wrong in wrong_arrays(x):
                yield f"{name} {what}", given | {name: wrong}, tuple(given)
            for axis in range(x.ndim):
                if (name, axis) not in free:
                    yield f"{name} size {axis}", given | {name: longer(x, axis)}, tuple(given)
        elif isinstance(x, (list, tuple)) and len(x) and isinstance(x[0], np.ndarray):
            for k, one in enumerate(x):
                axes = [axis for axis in range(one.ndim) if (f"{name}[{k}]", axis) not in free]
                arrays = (pair for pair in wrong_arrays(one) if (name, pair[0]) != ("weights", "strides"))  # copied
                wrong = [*arrays, *((f"size {axis}", longer(one, axis)) for axis in axes)]
                for what, array in wrong:
                    yield f"{name}[{k}] {what}", given | {name: [*x[:k], array, *x[k + 1 :]]}, (name, "mlp", "vectors")
            yield f"{name} short", given | {name: x[:-1]}, (name,)
            yield f"{name} long", given | {name: [*x, x[-1]]}, (name,)


def refused(function, given):
    """The message of the error; None if there is none."""
    try:
        function(**given)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def check(function, given, free=()):
    """That the call is right, and that every fault of it is an error that names a field."""
    assert refused(function, given) is None
    for label, wrong, names in faults(given, free):
        message = refused(function, wrong)
        assert message is not None, f"{function.__name__}: {label} is not refused"
        assert any(name in message for name in names), f"{label}: {message}"


def raises(name, given, error, match, **changes):
    """That the kernel ``name`` refuses ``given`` with these changes."""
    with pytest.raises(error, match=f"^{name}: {match}"):
        getattr(_C, name)(**(given | changes))


def check_fields(name, given, returned=(None,)):
    """That the call is right; without one of its fields, with another, or with a result to read only, it is not."""
    assert getattr(_C, name)(**given) in returned
    for field in given:
        raises(name, {k: x for k, x in given.items() if k != field}, TypeError, f"{field} is missing")
    raises(name, given, TypeError, "there is no field colour", colour=1)
    given["out"].flags.writeable = False
    raises(name, given, ValueError, "out must be writeable")


def check_array(name, given, field, longer_is=".* must have shape"):
    """That an array of other numbers, axes, strides or (``longer_is``, None: any will do) sizes is refused."""
    x = given[field]
    swapped = x.astype(x.dtype.newbyteorder(">")) if x.dtype.itemsize > 1 else x.astype(int)
    for wrong in (x.astype(np.float16), swapped):
        raises(name, given, TypeError, f"{field} must hold", **{field: wrong})
    raises(name, given, TypeError, f"{field} must be an array", **{field: x.tolist()})
    raises(name, given, ValueError, f"{field} must have shape", **{field: x[None]})
    raises(name, given, ValueError, f"{field} must be contiguous", **{field: np.repeat(x, 2, -1)[..., ::2]})
    if longer_is is not None:
        raises(name, given, ValueError, longer_is, **{field: longer(x, 0)})
