"""What a call is made of: right arguments of small sizes, and ways to spoil them."""

import random

import numpy as np
import torch

INF, NAN = float("inf"), float("nan")
HURTS = (NAN, INF, -INF, -0.0, 1e-40, 1e38, -1e38, 3.4e38, 2.0**31, -1.0, 0.5)
NUMBERS = (0, 1, -1, 2, 3, 7, 16, 255, 2**15, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, -(2**62))
WORDS = ("", "raster", "exact", "nonzero", "signed_cost", "uint8", "packed", "no such word", "\x00")
TORCH_TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
TORCH_TYPES += (torch.int8, torch.complex64)
TYPES = ("f8", "f2", "i8", "i4", "u1", "?", "i1", ">f4", ">i2", ">i8", "c8", "U3", "O")
NORMAL = np.random.default_rng(0).standard_normal(1 << 16).astype(np.float32)


class Draw(random.Random):
    """Everything random of one call comes from its seed."""

    def normal(self, *shape, scale=1.0):
        count = int(np.prod(shape))
        at = self.randrange(len(NORMAL) - count)
        return (NORMAL[at : at + count] * np.float32(scale)).reshape(shape)

    def bits(self, *shape, share=0.3):
        return self.normal(*shape) < share * 2 - 1

    def whole(self, low, high, *shape):
        count = int(np.prod(shape))
        return np.array([self.randrange(low, high) for _ in range(count)], np.int64).reshape(shape)

    def t(self, *shape, scale=1.0):
        return torch.from_numpy(self.normal(*shape, scale=scale).copy())


# ---------------------------------------------------------------- tensors


def change_tensor(draw, x):
    """(what was done, tensor); the values of a tensor of floats, or its form."""
    ways = [value, value, axis, axis, rank, dtype, strides, expanded, moved, empty]
    way = draw.choice(ways)
    return way.__name__, way(draw, x)


def value(draw, x):
    if not x.numel():
        return x
    x = x.clone(memory_format=torch.contiguous_format)
    flat = x.view(-1)
    for _ in range(draw.choice((1, 1, 2, flat.numel()))):
        at = draw.randrange(flat.numel())
        if x.is_floating_point():
            flat[at] = draw.choice(HURTS)
        elif x.dtype == torch.bool:
            flat[at] = not flat[at]
        else:
            if x.is_complex():
                return x
            info = torch.iinfo(x.dtype)
            flat[at] = max(info.min, min(info.max, draw.choice(NUMBERS)))
    return x


def axis(draw, x):
    if not x.ndim:
        return x
    k = draw.randrange(x.ndim)
    n = x.shape[k]
    if draw.random() < 0.5:
        return x.narrow(k, 0, max(n - 1, 0)).contiguous()
    more = draw.choice((1, 1, 2, 16))
    return torch.cat(
        [x, x.narrow(k, 0, min(n, 1)).expand(*[more if j == k and n else s for j, s in enumerate(x.shape)])], k
    )


def rank(draw, x):
    return (
        x[None] if draw.random() < 0.5 or not x.ndim else x.select(draw.randrange(x.ndim), 0) if x.numel() else x[None]
    )


def dtype(draw, x):
    return x.to(draw.choice(TORCH_TYPES))


def strides(draw, x):
    if not x.ndim:
        return x
    k = draw.randrange(x.ndim)
    wide = torch.stack([x, x], k + 1).flatten(k, k + 1)
    step = wide[(slice(None),) * k + (slice(None, None, 2),)]
    return step if draw.random() < 0.5 else x.transpose(0, -1).contiguous().transpose(0, -1)


def expanded(draw, x):
    if not x.ndim or 0 in x.shape:
        return x
    k = draw.randrange(x.ndim)
    return x.narrow(k, 0, 1).expand(x.shape)


def moved(draw, x):
    """At an odd address, or at one that is aligned to the number only."""
    if not x.numel() or x.dtype == torch.bool:
        return x
    bytes_ = x.contiguous().view(-1).numpy().tobytes() if x.dtype != torch.bfloat16 else b""
    if not bytes_:
        return x
    by = draw.choice((1, 4))
    room = bytearray(by) + bytearray(bytes_)
    return torch.frombuffer(room, dtype=x.dtype, offset=by).reshape(x.shape)


def empty(draw, x):
    if not x.ndim:
        return x
    k = draw.randrange(x.ndim)
    shape = [0 if j == k else draw.choice((s, s, s, 2**31, 2**40)) for j, s in enumerate(x.shape)]
    try:
        return x.new_zeros(shape)
    except RuntimeError:  # torch itself counts too far
        return x.narrow(k, 0, 0).contiguous()


# ---------------------------------------------------------------- arrays


def change_array(draw, x):
    way = draw.choice([array_value, array_value, array_axis, array_type, array_strides, array_moved, array_rank])
    return way.__name__, way(draw, x)


def array_value(draw, x):
    if not x.size or x.dtype.kind not in "fiub":
        return x
    x = x.copy()
    for _ in range(draw.choice((1, 1, 3))):
        at = draw.randrange(x.size)
        if x.dtype.kind == "f":
            x.flat[at] = draw.choice(HURTS)
        elif x.dtype.kind == "b":
            x.flat[at] = not x.flat[at]
        else:
            info = np.iinfo(x.dtype)
            x.flat[at] = max(info.min, min(info.max, draw.choice(NUMBERS)))
    return x


def array_axis(draw, x):
    if not x.ndim:
        return x
    k = draw.randrange(x.ndim)
    if draw.random() < 0.6:
        return x.take(range(max(x.shape[k] - draw.choice((1, 1, x.shape[k])), 0)), k)
    return np.concatenate([x, x.take(range(min(1, x.shape[k])), k)], k)


def array_rank(draw, x):
    return x[None] if draw.random() < 0.5 or not x.ndim or not x.shape[0] else x[0]


def array_type(draw, x):
    with np.errstate(all="ignore"):
        try:
            return x.astype(draw.choice(TYPES))
        except (OverflowError, ValueError, TypeError):  # objects of an earlier change
            return x


def array_strides(draw, x):
    if not x.ndim:
        return x
    k = draw.randrange(x.ndim)
    ways = (np.flip(x, k), np.repeat(x, 2, k)[(slice(None),) * k + (slice(None, None, 2),)], np.asfortranarray(x))
    if x.shape[k]:
        ways += (np.broadcast_to(x.take([0], k), x.shape),)
    return draw.choice(ways)


def array_moved(draw, x):
    """A field of packed records."""
    packed = np.zeros(x.shape, np.dtype([("odd", "u1"), ("x", x.dtype)]))
    packed["x"] = x
    return packed["x"]


# ---------------------------------------------------------------- the rest


def change_other(draw, x):
    """Of numbers, words, flags and lists of them."""
    if isinstance(x, bool):
        return draw.choice((not x, x, None))
    if isinstance(x, int):
        return draw.choice(NUMBERS)
    if isinstance(x, float):
        return draw.choice((*HURTS, 0.0, 1.5))
    if isinstance(x, str):
        return draw.choice(WORDS)
    if isinstance(x, (list, tuple)):
        new = list(x)
        if new and draw.random() < 0.6:
            k = draw.randrange(len(new))
            new[k] = change(draw, new[k])[1]
        else:
            new = draw.choice((new[:-1], [*new, *new[-1:]], []))
        return type(x)(new) if isinstance(x, list) else tuple(new)
    return x


def change(draw, x):
    if isinstance(x, torch.Tensor):
        return change_tensor(draw, x)
    if isinstance(x, np.ndarray):
        return change_array(draw, x)
    if isinstance(x, dict) and x:
        key = draw.choice(list(x))
        return change_other.__name__, x | {key: change(draw, x[key])[1]}
    return change_other.__name__, change_other(draw, x)


def regular(x):
    """Whether a right answer can be asked for: numbers of a usual size, which no rounding of ours can make many."""
    if max(getattr(x, "shape", ()), default=0) > 1e4:
        return False
    if isinstance(x, torch.Tensor):
        x = x.detach().to(torch.float64).numpy() if not x.is_complex() else np.array(NAN)
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            return False
        with np.errstate(all="ignore"):
            size = np.abs(x.astype(np.float64))
        return bool((((size < 1e4) & (size > 1e-4)) | (size == 0)).all())
    if isinstance(x, (list, tuple)):
        return all(map(regular, x))
    if isinstance(x, dict):
        return all(map(regular, x.values()))
    if isinstance(x, int):
        return abs(x) <= 100  # iterations of the reference are slow
    return not isinstance(x, float) or x == INF or abs(x) < 1e5
