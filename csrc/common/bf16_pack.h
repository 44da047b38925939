// Operands of a bfloat16 product, with AVX-512. Included by one file for each engine.
#pragma once
#include <immintrin.h>

#include "common/bf16.h"

namespace fastprompt {
namespace {

// {x[0], y[0], x[1], y[1], …} in bfloat16
inline __m512i interleave(__m512 x, __m512 y) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(y, x));
}

inline __m512 high_part(__m512i both, bool second) {
  return _mm512_castsi512_ps(second ? _mm512_and_si512(both, _mm512_set1_epi32(0xffff0000))
                                    : _mm512_slli_epi32(both, 16));
}

void pack_right_avx512(const float* from, int64_t row, int64_t rows, int64_t depth, uint16_t* high, uint16_t* low) {
  for (int64_t k = 0; k < depth; k += 2)
    for (int64_t n = 0; n < kBf16Columns; n += 16) {
      const float* at = from + k * row + n;
      const int64_t to = (k / 2 * kBf16Columns + n) * 2;
      const __m512 x = k < rows ? _mm512_loadu_ps(at) : _mm512_setzero_ps();
      const __m512 y = k + 1 < rows ? _mm512_loadu_ps(at + row) : _mm512_setzero_ps();
      const __m512i both = interleave(x, y);
      _mm512_storeu_si512(high + to, both);
      if (!low) continue;
      const __m512 x_low = _mm512_sub_ps(x, high_part(both, false)), y_low = _mm512_sub_ps(y, high_part(both, true));
      _mm512_storeu_si512(low + to, interleave(x_low, y_low));
    }
}

void pack_in_order_avx512(const float* from, int64_t count, uint16_t* high, uint16_t* low) {
  for (int64_t k = 0; k < count; k += 32) {
    const __m512 x = _mm512_loadu_ps(from + k), y = _mm512_loadu_ps(from + k + 16);
    const __m512i packed = (__m512i)_mm512_cvtne2ps_pbh(y, x);
    _mm512_storeu_si512(high + k, packed);
    if (!low) continue;
    const auto wide = [](__m256i half) {
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    };
    const __m512 x_low = _mm512_sub_ps(x, wide(_mm512_castsi512_si256(packed)));
    const __m512 y_low = _mm512_sub_ps(y, wide(_mm512_extracti64x4_epi64(packed, 1)));
    _mm512_storeu_si512(low + k, (__m512i)_mm512_cvtne2ps_pbh(y_low, x_low));
  }
}

}  // namespace
}  // namespace fastprompt
