// Elementary functions on vectors, for kernels whose results are compared within a tolerance, not bit by bit.
#pragma once
#include "common/simd.h"

namespace fastprompt {
namespace FP_ISA {

#if defined(__AVX512F__)
static inline vf fma(vf x, vf y, vf z) { return _mm512_fmadd_ps(x, y, z); }
static inline vf max(vf x, vf y) { return _mm512_max_ps(x, y); }
static inline float sum(vf x) { return _mm512_reduce_add_ps(x); }
static inline float maximum(vf x) { return _mm512_reduce_max_ps(x); }
#else
#if defined(__AVX2__)
static inline vf fma(vf x, vf y, vf z) { return _mm256_fmadd_ps(x, y, z); }
static inline vf max(vf x, vf y) { return _mm256_max_ps(x, y); }
#elif defined(__SSE2__)
static inline vf fma(vf x, vf y, vf z) { return x * y + z; }
static inline vf max(vf x, vf y) { return _mm_max_ps(x, y); }
#else
static inline vf fma(vf x, vf y, vf z) { return x * y + z; }
static inline vf max(vf x, vf y) { return x > y ? x : y; }
#endif
static inline float sum(vf x) {
  float s = 0;
  for (int k = 0; k < N; ++k) s += x[k];
  return s;
}
static inline float maximum(vf x) {
  float m = x[0];
  for (int k = 1; k < N; ++k) m = x[k] > m ? x[k] : m;
  return m;
}
#endif

typedef uint32_t vint __attribute__((vector_size(sizeof(vf))));  // wraps, which the bits of a NaN make it do

// e^x with a relative error below 3e-7; 1e-38 instead of less, so that e^-inf is as good as 0 in a softmax.
static inline vf exp(vf x) {
  x = max(min(x, broadcast(88.f)), broadcast(-87.f));
  // Adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits.
  const vf magic = broadcast(12582912.f), shifted = fma(x, broadcast(1.44269504f), magic), n = shifted - magic;
  const vf r = fma(n, broadcast(-1.42860677e-6f), fma(n, broadcast(-0.693145752f), x));
  vf p = broadcast(1.3888889e-3f);
  p = fma(p, r, broadcast(8.3333333e-3f));
  p = fma(p, r, broadcast(4.1666667e-2f));
  p = fma(p, r, broadcast(0.16666667f));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p, r, broadcast(1.f));
  p = fma(p, r, broadcast(1.f));
  const vint exponent = reinterpret_cast<vint>(shifted) << 23;
  return reinterpret_cast<vf>(reinterpret_cast<vint>(p) + exponent);
}

// 2^x for x <= 126 with a relative error below 2e-7 (a polynomial of degree 5, fitted to 2^r for |r| <= 1/2); 1e-38
// instead of less, NaN for NaN.
static inline vf exp2(vf x) {
  x = max(broadcast(-126.f), x);
  const vf magic = broadcast(12582912.f), shifted = x + magic, r = x - (shifted - magic);
  vf p = broadcast(1.32647271e-3f);
  p = fma(p, r, broadcast(9.67151265e-3f));
  p = fma(p, r, broadcast(5.55073374e-2f));
  p = fma(p, r, broadcast(0.240222421f));
  p = fma(p, r, broadcast(0.693146978f));
  p = fma(p, r, broadcast(1.f));
  const vint exponent = reinterpret_cast<vint>(shifted) << 23;
  return reinterpret_cast<vf>(reinterpret_cast<vint>(p) + exponent);
}

// 1 - 2 / (e^2x + 1), with an absolute error below 2e-7; exactly 1 from 9.1 on and 0 at 0.
static inline vf tanh(vf x) {
  const vf one = broadcast(1.f), e = exp(x + x);
  return one - (one + one) / (e + one);
}

// x Phi(x), the GELU of the error function, as max(x, 0) - |x| Phi(-|x|). The logarithm of Phi(-z) is close to a
// parabola: a polynomial of degree 6, fitted on [0, 6] to the least largest error of z Phi(-z), has 5e-8. Behind 6 it
// is 1e-9. Two thirds of the products that the usual rational function times e^(-z^2 / 2) takes.
static inline vf gelu(vf x) {
  const vf z = min(broadcast(6.f), abs(x));
  vf p = broadcast(3.30927796e-5f);
  p = fma(p, z, broadcast(-7.69219361e-4f));
  p = fma(p, z, broadcast(8.08071531e-3f));
  p = fma(p, z, broadcast(-5.34121022e-2f));
  p = fma(p, z, broadcast(-0.458770961f));
  p = fma(p, z, broadcast(-1.15120173f));
  p = fma(p, z, broadcast(-0.999993086f));
  return max(x, broadcast(0.f)) - z * exp2(p);
}

}  // namespace FP_ISA
}  // namespace fastprompt
