// Parameters of layers, where torch stores them.
#pragma once

namespace fastprompt {

struct Linear {
  const float *weight, *bias;  // (out, in), (out)
};

struct LayerNorm {
  const float *weight, *bias;  // (channels)
  float eps;
};

}  // namespace fastprompt
