"""The interpreter on what nvcc emits: results, and refusal of planted bugs."""

import numpy as np
import pytest
from ptx import Kernel
from ptx.build import cuda_module

f32, i32, u32 = np.float32, np.int32, np.uint32


@pytest.fixture(scope="module", params=[75, 80])
def arch(request):
    return request.param


@pytest.fixture
def kernel(arch):
    return lambda name: Kernel(cuda_module("tests/ptx/kernels.cu", arch), name)


def normal(rng, *shape, dtype=f32):
    return rng.normal(size=shape).astype(dtype)


def test_saxpy(kernel, rng):
    x, y = normal(rng, 1000), normal(rng, 1000)
    expected = 2 * x + y
    kernel("saxpy").launch(4, 256, [1000, 2.0, x, y])
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_block_sum(kernel, rng):
    x, out = normal(rng, 10000), np.zeros(8, f32)
    kernel("block_sum").launch(8, 256, [x, out, len(x)])
    assert abs(out.sum() - x.sum()) < 1e-2


def test_result_does_not_depend_on_block_order_or_batch(kernel, rng):
    x, out, other = normal(rng, 5000), np.zeros(8, f32), np.zeros(8, f32)
    kernel("block_sum").launch(8, 256, [x, out, len(x)])
    kernel("block_sum").launch(8, 256, [x, other, len(x)], batch=512, order=1, check_blocks=True)
    assert (out == other).all()


def test_warp_sum(kernel, rng):
    x, out, positive = normal(rng, 4096), np.zeros(128, f32), np.zeros(128, u32)
    kernel("warp_sum").launch(32, 128, [x, out, positive, len(x)])
    rows = x.reshape(-1, 32)
    np.testing.assert_allclose(out, rows.sum(axis=1), atol=1e-4)
    bits = (rows > 0).astype(np.uint64) << np.arange(32, dtype=np.uint64)
    assert (positive == bits.sum(axis=1)).all()


def test_atomics(kernel, rng):
    x, low = np.abs(normal(rng, 1000)), np.array([0x7F800000], i32)
    kernel("atomic_min").launch(8, 128, [x, low, len(x)])
    assert low.view(f32)[0] == x.min()
    index, total = rng.integers(0, 17, len(x)).astype(i32), np.zeros(17, f32)
    kernel("atomic_add").launch(8, 128, [x, index, total, len(x)])
    np.testing.assert_allclose(total, np.bincount(index, x, 17), atol=1e-3)


def sweep_rows(image, distance, lamb):
    distance = np.pad(distance, ((0, 0), (1, 1)), constant_values=np.inf)
    image = np.pad(image, ((0, 0), (1, 1)))
    width = image.shape[1] - 2
    for r in range(1, len(image)):
        for k in (-1, 0, 1):
            above = slice(1 + k, 1 + k + width)
            slope = image[r, 1:-1] - image[r - 1, above]
            cost = np.sqrt((2 if k else 1) * (1 - lamb) + lamb * slope * slope)
            distance[r, 1:-1] = np.minimum(distance[r, 1:-1], distance[r - 1, above] + cost)
    return distance[:, 1:-1]


def test_dynamic_shared_memory(kernel, rng):
    height, width = 32, 100
    image = rng.random((height, width)).astype(f32)
    distance = np.where(rng.random((height, width)) < 0.02, 0, 1e6).astype(f32)
    expected = sweep_rows(image, distance, 0.5)
    args = [image, distance, height, width, 0.5]
    kernel("row_sweep").launch(1, 128, args, smem=2 * width * 4)
    np.testing.assert_allclose(distance, expected, rtol=1e-5)


def test_rounding_to_half_and_bfloat16(kernel, rng):
    x, h, b = normal(rng, 1000), np.zeros(1000, np.float16), np.zeros(1000, np.uint16)
    kernel("round_floats").launch(8, 128, [x, h, b, len(x)])
    assert (h == x.astype(np.float16)).all()
    bits = x.view(u32)
    assert (b == (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).all()


def test_half2(kernel, rng):
    x, out = normal(rng, 1000, dtype=np.float16), np.zeros(1000, np.float16)
    kernel("half2_fma").launch(4, 128, [x, out, 500])
    np.testing.assert_array_equal(out, (x.astype(np.float64) ** 2 + x).astype(np.float16))


def test_float4(kernel, rng):
    x, out = normal(rng, 1000, 4), np.zeros((1000, 4), f32)
    kernel("scale_float4").launch(8, 128, [x, out, len(x)])
    np.testing.assert_allclose(out, x * [2, 1, 1, 1] + [0, 0, 0, 1], rtol=1e-6)


def test_softmax(kernel, rng):
    x, out = normal(rng, 8, 300), np.zeros((8, 300), f32)
    trace = {}
    kernel("softmax").launch(8, 128, [x, out, 300], trace=trace)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(out, e / e.sum(axis=1, keepdims=True), atol=1e-6)
    assert trace["shfl"] == 8 * 128 * 10


def test_votes(kernel, rng):
    x, out = rng.integers(-9, 9, 128).astype(i32), np.zeros(128, i32)
    kernel("votes").launch(1, 128, [x, out])
    any_of_warp = np.repeat((x.reshape(-1, 32) > 5).any(axis=1), 32)
    ones = np.array([bin(v & 0xFFFFFFFF).count("1") for v in x.tolist()])
    zeros = np.array([32 - ((v | 1) & 0xFFFFFFFF).bit_length() for v in x.tolist()])
    assert (out == (x > 0).sum() * 4 + 2 + any_of_warp + ones * 1000 + zeros).all()


def test_shuffles_in_divergent_code(kernel, rng):
    x, out, lane = rng.integers(-9, 9, 32).astype(i32), np.zeros(32, i32), np.arange(32)
    kernel("odd_and_even_lanes").launch(1, 32, [x, out])
    assert (out == np.where(lane & 1, x + x[lane ^ 2], x - x[lane ^ 4])).all()


def test_bmsk(kernel, rng):
    x, out = rng.integers(0, 2**12, 128).astype(u32), np.zeros((128, 2), u32)
    kernel("mask_of_bits").launch(1, 128, [x, out])
    for v, (clamped, wrapped) in zip(x.tolist(), out.tolist(), strict=False):
        start, length = v & 63, v >> 6 & 63
        assert clamped == ((1 << min(length, 32)) - 1 << min(start, 32)) & 0xFFFFFFFF
        assert wrapped == ((1 << length % 32) - 1 << start % 32) & 0xFFFFFFFF


def test_local_array(kernel, rng):
    x, out = rng.integers(0, 99, 128).astype(i32), np.zeros(128, i32)
    kernel("local_array").launch(1, 128, [x, out])
    assert (out == x[x[np.arange(128) & 15] & 15] * np.arange(128)).all()


def test_calls(kernel, rng):
    x, out, t = normal(rng, 128), np.zeros(128, f32), np.arange(128)
    kernel("calls").launch(1, 128, [x, out])
    third = x + (x - 2) + (x + 4) + t + 1
    other = x + ((t & 3) + 1 + x * x) ** 2
    buffer = np.where(t % 3 == 0, third, other)
    np.testing.assert_allclose(out, buffer + buffer[t ^ 1], rtol=1e-5)


def test_module_variables(kernel, rng):
    x, out = rng.integers(0, 99, 128).astype(i32), np.zeros(128, f32)
    k = kernel("module_variables")
    k.launch(1, 128, [x, out], racecheck=False)
    assert (out == np.array([1, 2, 3, 4])[x & 3] + 7.5).all()
    assert k.variables["counter"].view(u32)[0] == 128
    assert (k.variables["history"].view(f32) == [0.5, 1, 2, 3, 4, 5, 6, 7]).all()
    k.variables["weights"].view(f32)[:] = 10  # what cudaMemcpyToSymbol does
    k.launch(1, 128, [x, out])
    assert (out == 17.5).all()


def test_struct_argument(kernel, rng):
    x, out = normal(rng, 6, 7), np.zeros((6, 7), f32)
    kernel("struct_argument").launch(1, 64, [("Piif", x, 6, 7, 2.5), out])
    assert (out == x * f32(2.5)).all()


def test_64_bit_integers(kernel, rng):
    x = rng.integers(0, 2**64, 32, dtype=np.uint64)
    y = rng.integers(-(2**63), 2**63, 32)
    a, b, c = np.zeros(32, np.uint64), np.zeros(32, np.int64), np.zeros(32, np.uint64)
    kernel("high_products").launch(1, 32, [x, y, a, b, c])
    assert a.tolist() == [p * q >> 64 for p, q in zip(x.tolist(), x[::-1].tolist(), strict=False)]
    assert b.tolist() == [p * q >> 64 for p, q in zip(y.tolist(), y[::-1].tolist(), strict=False)]
    assert c.tolist() == [v // 10 + v % 1000003 for v in x.tolist()]


def test_jump_table_and_printf(kernel):
    x, out = np.arange(32, dtype=i32) % 10, np.zeros(32, i32)
    kernel("jump_table").launch(1, 32, [x, out])
    cases = {0: 11, 1: 7, 2: -3, 3: 10, 4: 32, 5: 2, 6: -6}
    assert out.tolist() == [cases.get(v, 99) for v in x.tolist()]


def test_named_barriers(kernel, rng):
    x, out = normal(rng, 128), np.zeros(128, f32)
    kernel("named_barriers").launch(1, 128, [x, out])
    assert (out == x.reshape(2, 64)[:, ::-1].reshape(-1)).all()


def test_barrier_of_all_blocks(kernel, rng):
    x, y, arrived = normal(rng, 256), np.zeros(256, f32), np.zeros(1, u32)
    expected = np.roll(x, 6) + 6
    kernel("shift_through_blocks").launch(8, 32, [x, y, arrived, 6], order=0)
    np.testing.assert_allclose(x, expected, rtol=1e-5)


def on_sm_80(name):
    return Kernel(cuda_module("tests/ptx/kernels.cu", 80), name)


def test_asynchronous_copy(rng):
    x, out = normal(rng, 128, 4), np.zeros((128, 4), f32)
    on_sm_80("asynchronous_copy").launch(1, 128, [x, out])
    assert (out == x[::-1]).all()


def test_warp_reductions(rng):
    x, out = rng.integers(-9, 9, 64).astype(i32), np.zeros(64, i32)
    on_sm_80("warp_reductions").launch(1, 64, [x, out])
    rows = x.reshape(2, 32)
    peers = ((rows & 3)[:, :, None] == (rows & 3)[:, None, :]).sum(axis=2)
    expected = rows.sum(axis=1, keepdims=True) * 100 + peers + 2
    assert (out.reshape(2, 32) == expected).all()
