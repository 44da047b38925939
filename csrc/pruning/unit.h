// Lengths of vectors, as torch.nn.functional.normalize takes them.
#pragma once
#include "common/math.h"

namespace fastprompt {
namespace FP_ISA {

static inline float squares(const float* x, int64_t count) {
  vf total = broadcast(0.f);
  int64_t c = 0;
  for (; c + N <= count; c += N) total = fma(loadu(x + c), loadu(x + c), total);
  float s = sum(total);
  for (; c < count; ++c) s += x[c] * x[c];
  return s;
}

// At least 1e-12, so that a vector of zeros stays one; NaN stays NaN.
static inline float length_of(float sum_of_squares) {
  const float length = __builtin_sqrtf(sum_of_squares);
  return length < 1e-12f ? 1e-12f : length;
}

}  // namespace FP_ISA
}  // namespace fastprompt
