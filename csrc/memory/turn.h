// Rotary positions: a pair (2 i, 2 i + 1) of a row is turned by an angle, whose cosine and sine stand there twice.
#pragma once
#include "common/simd.h"

namespace fastprompt {
namespace FP_ISA {

static inline void turn(const float* cos, const float* sin, int64_t width, float* x) {
  for (int64_t d = 0; d < width; d += 2) {
    const float a = x[d], b = x[d + 1];
    x[d] = a * cos[d] - b * sin[d];
    x[d + 1] = b * cos[d + 1] + a * sin[d + 1];
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
