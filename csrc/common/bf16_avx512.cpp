// Compiled with AVX-512 BF16, where the compiler has it.
#if defined(__AVX512BF16__)
#include "common/bf16_pack.h"

namespace fastprompt {

const Bf16& bf16_avx512();

namespace {

constexpr int kRows = 4, kVectors = 4;  // 16 sums in registers; 8 loads for 16 products

inline __m512bh pair(const uint16_t* x) {
  int32_t both;
  __builtin_memcpy(&both, x, 4);
  return (__m512bh)_mm512_set1_epi32(both);
}

void add_avx512(const Bf16Product& p) {
  for (int64_t m = 0; m < p.rows; m += kRows) {
    float* out = p.out + m * p.out_row;
    __m512 sums[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v)
        sums[r][v] = p.add ? _mm512_loadu_ps(out + r * p.out_row + 16 * v) : _mm512_setzero_ps();
    const uint16_t *first = p.left + m / kBf16Rows * p.layout.down + m % kBf16Rows * p.layout.row, *right = p.right;
    for (int64_t k = 0; k < p.depth; k += 2, right += 2 * kBf16Columns) {
      const uint16_t* left = first + k / kBf16Depth * p.layout.along + k % kBf16Depth;
      __m512bh b[kVectors];
      for (int v = 0; v < kVectors; ++v) b[v] = (__m512bh)_mm512_loadu_si512(right + 32 * v);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m512bh a = pair(left + r * p.layout.row);
        // The next rows, a line at a time: weights that come from afar gave 187 GFLOP/s without, 205 with.
        if (k % 32 == 0) __builtin_prefetch(left + (r + kRows) * p.layout.row);
        for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], a, b[v]);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(out + r * p.out_row + 16 * v, sums[r][v]);
  }
}

void multiply_avx512(const Bf16Product& p) { one_by_one(p, add_avx512); }

constexpr Bf16 kEngine{"avx512_bf16", false, multiply_avx512, pack_right_avx512, pack_in_order_avx512};

}  // namespace

const Bf16& bf16_avx512() { return kEngine; }

}  // namespace fastprompt
#endif
