// The few vector operations that the kernels need, for the instruction set of this translation unit.
// vf is N floats; + - * / come from the compiler's vector types.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef FP_ISA
#error "simd.h belongs into *.simd.cpp files"
#endif

namespace fastprompt {
namespace FP_ISA {

#if defined(__AVX512F__)
using vf = __m512;
static inline vf broadcast(float x) { return _mm512_set1_ps(x); }
static inline vf load(const float* p) { return _mm512_load_ps(p); }
static inline vf loadu(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, vf x) { _mm512_store_ps(p, x); }
static inline void storeu(float* p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf min(vf x, vf y) { return _mm512_min_ps(x, y); }
static inline vf abs(vf x) { return _mm512_abs_ps(x); }
static inline vf sqrt(vf x) { return _mm512_sqrt_ps(x); }
static inline uint64_t less_mask(vf x, vf y) { return _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ); }
#elif defined(__AVX2__)
using vf = __m256;
static inline vf broadcast(float x) { return _mm256_set1_ps(x); }
static inline vf load(const float* p) { return _mm256_load_ps(p); }
static inline vf loadu(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, vf x) { _mm256_store_ps(p, x); }
static inline void storeu(float* p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf min(vf x, vf y) { return _mm256_min_ps(x, y); }
static inline vf abs(vf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), x); }
static inline vf sqrt(vf x) { return _mm256_sqrt_ps(x); }
static inline uint64_t less_mask(vf x, vf y) { return _mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_LT_OQ)); }
#elif defined(__SSE2__)
using vf = __m128;
static inline vf broadcast(float x) { return _mm_set1_ps(x); }
static inline vf load(const float* p) { return _mm_load_ps(p); }
static inline vf loadu(const float* p) { return _mm_loadu_ps(p); }
static inline void store(float* p, vf x) { _mm_store_ps(p, x); }
static inline void storeu(float* p, vf x) { _mm_storeu_ps(p, x); }
static inline vf min(vf x, vf y) { return _mm_min_ps(x, y); }
static inline vf abs(vf x) { return _mm_andnot_ps(_mm_set1_ps(-0.f), x); }
static inline vf sqrt(vf x) { return _mm_sqrt_ps(x); }
static inline uint64_t less_mask(vf x, vf y) { return _mm_movemask_ps(_mm_cmplt_ps(x, y)); }
#else  // any compiler with vector types: NEON, SVE, RISC-V …
typedef float vf __attribute__((vector_size(16)));
typedef float vfu __attribute__((vector_size(16), aligned(4)));
typedef int32_t vi __attribute__((vector_size(16)));
static inline vf broadcast(float x) { return vf{x, x, x, x}; }
static inline vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
static inline vf loadu(const float* p) { return *reinterpret_cast<const vfu*>(p); }
static inline void store(float* p, vf x) { *reinterpret_cast<vf*>(p) = x; }
static inline void storeu(float* p, vf x) { *reinterpret_cast<vfu*>(p) = x; }
static inline vf min(vf x, vf y) { return x < y ? x : y; }
static inline vf abs(vf x) { return reinterpret_cast<vf>(reinterpret_cast<vi>(x) & 0x7fffffff); }
static inline vf sqrt(vf x) {
  for (int i = 0; i < 4; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
static inline uint64_t less_mask(vf x, vf y) {
  const vi m = x < y;
  return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8);
}
#endif
// NOTE: min(x, y) is y where either is NaN: a NaN candidate must come first, as in min(candidate, value).

constexpr int N = sizeof(vf) / sizeof(float);

// {low[N - 1], high[0], …}: every float's left neighbour, and {low[1], …, high[0]}: its right one.
#if defined(__AVX512F__)
static inline vf shift_in_left(vf low, vf high) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), 15));
}
static inline vf shift_in_right(vf low, vf high) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), 1));
}
#elif defined(__AVX2__)
static inline __m256 middle(vf low, vf high) { return _mm256_permute2f128_ps(low, high, 0x21); }
static inline vf shift_in_left(vf low, vf high) {
  return _mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(high), _mm256_castps_si256(middle(low, high)), 12));
}
static inline vf shift_in_right(vf low, vf high) {
  return _mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(middle(low, high)), _mm256_castps_si256(low), 4));
}
#elif defined(__SSE2__)
static inline vf shift_in_left(vf low, vf high) { return _mm_shuffle_ps(_mm_shuffle_ps(low, high, 0x0f), high, 0x98); }
static inline vf shift_in_right(vf low, vf high) { return _mm_shuffle_ps(low, _mm_shuffle_ps(low, high, 0x0f), 0x89); }
#else
static inline vf shift_in_left(vf low, vf high) { return vf{low[3], high[0], high[1], high[2]}; }
static inline vf shift_in_right(vf low, vf high) { return vf{low[1], low[2], low[3], high[0]}; }
#endif

struct Taps {
  vf left, centre, right;
};

// Walks along an aligned row, vector by vector, and yields x[-1], x[0], x[1] of each.
// Rolling = the neighbouring vectors stay in registers, for kernels with few streams.
// NOTE: unaligned loads at x - 1 and x + 1 would cross a cache line each with 64-byte vectors.
template <bool Rolling>
struct Walk {
  vf low, high;
  void begin(const float* x) {
    if (Rolling) low = load(x - N), high = load(x);
  }
  Taps at(const float* x) {
    const vf before = Rolling ? low : load(x - N), here = Rolling ? high : load(x), next = load(x + N);
    if (Rolling) low = here, high = next;
    return {shift_in_left(before, here), here, shift_in_right(here, next)};
  }
};

// dst[j][i] = src[i][j] for an N x N tile; row strides in floats.
static inline void transpose_tile(const float* src, ptrdiff_t src_row, float* dst, ptrdiff_t dst_row) {
#if defined(__AVX512F__)
  __m512 a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = loadu(src + i * src_row);
  for (int i = 0; i < 8; ++i) {
    b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d p = _mm512_castps_pd(b[4 * i]), q = _mm512_castps_pd(b[4 * i + 2]);
    const __m512d r = _mm512_castps_pd(b[4 * i + 1]), s = _mm512_castps_pd(b[4 * i + 3]);
    a[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, q));
    a[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, q));
    a[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(r, s));
    a[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(r, s));
  }
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88);
    b[4 + i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
    b[8 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
    b[12 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    storeu(dst + i * dst_row, _mm512_shuffle_f32x4(b[i], b[8 + i], 0x88));
    storeu(dst + (8 + i) * dst_row, _mm512_shuffle_f32x4(b[i], b[8 + i], 0xdd));
  }
#elif defined(__AVX2__)
  __m256 a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = loadu(src + i * src_row);
  for (int i = 0; i < 4; ++i) {
    b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    a[4 * i] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
    a[4 * i + 1] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
    a[4 * i + 2] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
    a[4 * i + 3] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    storeu(dst + i * dst_row, _mm256_permute2f128_ps(a[i], a[4 + i], 0x20));
    storeu(dst + (4 + i) * dst_row, _mm256_permute2f128_ps(a[i], a[4 + i], 0x31));
  }
#elif defined(__SSE2__)
  __m128 a = loadu(src), b = loadu(src + src_row), c = loadu(src + 2 * src_row), d = loadu(src + 3 * src_row);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  storeu(dst, a), storeu(dst + dst_row, b), storeu(dst + 2 * dst_row, c), storeu(dst + 3 * dst_row, d);
#else
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) dst[j * dst_row + i] = src[i * src_row + j];
#endif
}

}  // namespace FP_ISA
}  // namespace fastprompt
