// LayerNorm on a tile whose tokens are contiguous and whose rows are the channels.
#pragma once
#include "common/layers.h"
#include "common/math.h"

namespace fastprompt {
namespace FP_ISA {

// x (channels, tokens) += bias, unless that is null; then out = its LayerNorm, unless norm.weight is null. `tokens` is
// a multiple of N; out may be x.
static inline void add_bias_and_normalise(int64_t channels, int64_t tokens, const float* bias, const LayerNorm& norm,
                                          float* x, float* out) {
  const vf share = broadcast(1.f / channels);
  for (int64_t t = 0; t < tokens; t += N) {
    vf total = broadcast(0.f), squares = total;
    for (int64_t c = 0; c < channels; ++c) {
      vf value = loadu(x + c * tokens + t);
      if (bias) storeu(x + c * tokens + t, value = value + broadcast(bias[c]));
      total = total + value;
    }
    if (!norm.weight) continue;
    const vf mean = total * share;
    for (int64_t c = 0; c < channels; ++c) {
      const vf value = loadu(x + c * tokens + t) - mean;
      squares = fma(value, value, squares);
    }
    const vf scale = broadcast(1.f) / sqrt(fma(squares, share, broadcast(norm.eps)));
    for (int64_t c = 0; c < channels; ++c) {
      const vf value = (loadu(x + c * tokens + t) - mean) * scale;
      storeu(out + c * tokens + t, fma(value, broadcast(norm.weight[c]), broadcast(norm.bias[c])));
    }
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
