"""The interpreter on what Triton emits (no GPU and no driver needed to compile)."""

import numpy as np
import pytest
from ptx import Fault
from ptx.build import compile_triton, run_triton

triton = pytest.importorskip("triton", reason="triton is not installed")

from triton import language as tl  # noqa: E402

f32, i32 = np.float32, np.int32
rng = np.random.default_rng(0)


@triton.jit
def softmax(x, out, width, block: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, block)
    v = tl.load(x + row * width + i, mask=i < width, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(out + row * width + i, e / tl.sum(e, 0), mask=i < width)


@triton.jit
def multiply(a, b, out, depth, rows: tl.constexpr, columns: tl.constexpr, step: tl.constexpr):
    m, n = tl.arange(0, rows), tl.arange(0, columns)
    total = tl.zeros((rows, columns), tl.float32)
    for first in range(0, depth, step):
        k = first + tl.arange(0, step)
        left = tl.load(a + m[:, None] * depth + k[None, :])
        right = tl.load(b + k[:, None] * columns + n[None, :])
        total = tl.dot(left, right, total)
    tl.store(out + m[:, None] * columns + n[None, :], total)


@triton.jit
def smaller(a, b):
    return tl.minimum(a, b)


@triton.jit
def running_minimum(x, out, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.store(out + i, tl.associative_scan(tl.load(x + i), 0, smaller))


@triton.jit
def sort(x, out, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.store(out + i, tl.sort(tl.load(x + i)))


@triton.jit
def atomic_minimum(x, out, n, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    v = tl.load(x + i, mask=i < n, other=1e30)
    tl.atomic_min(out + i * 0, v, mask=i < n)  # a scalar pointer aborts the compiler


@triton.jit
def atomic_sum(x, index, out, n, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    mask = i < n
    v = tl.load(x + i, mask=mask, other=0.0)
    tl.atomic_add(out + tl.load(index + i, mask=mask, other=0), v, mask=mask)


@triton.jit
def scale_bfloat16(x, out, n, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    v = tl.load(x + i, mask=i < n).to(tl.float32) * 1.5
    tl.store(out + i, v.to(tl.bfloat16), mask=i < n)


@triton.jit
def smallest_index(x, out, width, block: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, block)
    v = tl.load(x + row * width + i, mask=i < width, other=1e30)
    tl.store(out + row, tl.argmin(v, 0))


@triton.jit
def attention(q, k, v, out, n, rows: tl.constexpr, depth: tl.constexpr, step: tl.constexpr):
    m, d = tl.arange(0, rows), tl.arange(0, depth)
    query = tl.load(q + m[:, None] * depth + d[None, :])
    top = tl.full((rows,), -1e30, tl.float32)
    weight, total = tl.zeros((rows,), tl.float32), tl.zeros((rows, depth), tl.float32)
    for first in range(0, n, step):
        i = first + tl.arange(0, step)
        at, inside = i[:, None] * depth + d[None, :], (i < n)[:, None]
        score = tl.dot(query, tl.trans(tl.load(k + at, mask=inside, other=0.0)))
        score = tl.where((i < n)[None, :], score, -1e30)
        new_top = tl.maximum(top, tl.max(score, 1))
        p, shrink = tl.exp(score - new_top[:, None]), tl.exp(top - new_top)
        weight = weight * shrink + tl.sum(p, 1)
        value = tl.load(v + at, mask=inside, other=0.0)
        total = total * shrink[:, None] + tl.dot(p.to(value.dtype), value)
        top = new_top
    tl.store(out + m[:, None] * depth + d[None, :], total / weight[:, None])


def normal(*shape, dtype=f32):
    return rng.normal(size=shape).astype(dtype)


def bfloat16(x):
    bits = x.astype(f32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def softmax_rows(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


x, rows = normal(1000), normal(7, 100)
index = rng.integers(0, 20, 1000).astype(i32)
a, b = normal(64, 96, dtype=np.float16), normal(96, 64, dtype=np.float16)
a32, b32 = a.astype(f32), b.astype(f32)
query, key, value = (normal(n, 32, dtype=np.float16) for n in (16, 100, 100))
attended = softmax_rows(query.astype(f32) @ key.astype(f32).T) @ value.astype(f32)
x_bf16 = bfloat16(x)
x_back = (x_bf16.astype(np.uint32) << 16).view(f32)

product = a32 @ b32
least = np.minimum.accumulate(x[:512])
sums = np.bincount(index, x, 20)


def case(function, types, args, grid, expected, **constants):
    """The last array of `args` is the result."""
    return function, types.split(), args, grid, expected, constants


one, few, many = x[:1] * 0 + f32(1e30), x[:20] * 0, product * 0
tile, heads = {"rows": 64, "columns": 64, "step": 32}, {"rows": 16, "depth": 32, "step": 32}
qkv = [query, key, value, attended * 0, 100]
lowest, scaled = rows.argmin(1).astype(i32), bfloat16(x_back * 1.5)
CASES = [
    case(softmax, "*fp32 *fp32 i32", [rows, rows * 0, 100], 7, softmax_rows(rows), block=128),
    case(multiply, "*fp16 *fp16 *fp32 i32", [a, b, many, 96], 1, product, **tile),
    case(multiply, "*fp32 *fp32 *fp32 i32", [a32, b32, many, 96], 1, product, **tile),
    case(running_minimum, "*fp32 *fp32", [x[:512], x[:512] * 0], 1, least, block=512),
    case(sort, "*fp32 *fp32", [x[:256], x[:256] * 0], 1, np.sort(x[:256]), block=256),
    case(atomic_minimum, "*fp32 *fp32 i32", [x, one, 1000], 4, [x.min()], block=256),
    case(atomic_sum, "*fp32 *i32 *fp32 i32", [x, index, few, 1000], 4, sums, block=256),
    case(scale_bfloat16, "*bf16 *bf16 i32", [x_bf16, x_bf16 * 0, 1000], 4, scaled, block=256),
    case(smallest_index, "*fp32 *i32 i32", [rows, lowest * 0, 100], 7, lowest, block=128),
    case(attention, "*fp16 *fp16 *fp16 *fp32 i32", qkv, 1, attended, **heads),
]


@pytest.mark.parametrize("arch", [75, 80, 90])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__}-{case[1][0][1:]}")
def test_kernel(case, arch):
    function, types, args, grid, expected, constants = case
    compiled = compile_triton(function, " ".join(types), constants, arch)
    args = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
    if "wgmma" in compiled.asm["ptx"]:
        with pytest.raises(Fault, match="unsupported instruction"):
            run_triton(compiled, grid, args)
        return
    run_triton(compiled, grid, args)
    out = [arg for arg in args if isinstance(arg, np.ndarray)][-1]
    tolerance = 2e-2 if function is multiply and types[0] == "*fp32" and arch > 75 else 1e-3  # tf32
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=tolerance)
