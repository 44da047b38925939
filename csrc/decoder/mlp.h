// The small MLPs behind SAM's output tokens: one token of every prompt through linear layers with ReLU between them.
#pragma once
#include <cstdint>

#include "decoder/two_way.h"

namespace fastprompt {

struct Mlp {
  int64_t prompts, layers;
  const float* x;  // (prompts, widths[0]), a row every `x_row`
  int64_t x_row;
  const Linear* weights;  // (widths[n + 1], widths[n]) for n < layers
  const int64_t* widths;  // layers + 1; all but the last are multiples of 16
  float* out;             // (prompts, widths[layers])
};

void run_mlps(const Mlp* mlps, int64_t count, int threads);

FP_DECLARE_ISA(void, run_mlp, (const Mlp& args))

}  // namespace fastprompt
