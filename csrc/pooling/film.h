// out = x gamma + beta, a gamma and a beta for every channel of every image.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

struct Film {
  int64_t batch, channels, inner;  // x is (images, channels, inner), or (images, inner, channels) if `last`
  int64_t images;                  // of x: batch, or 1 for all
  bool last;
  const float *x, *gamma, *beta;  // (batch, channels)
  float* out;                     // (batch, …)
  int threads;
};

void film(const Film& args);

// Rows [first, last) of all images: a row is a channel's pixels, or a pixel's channels.
FP_DECLARE_ISA(void, film_rows, (const Film& args, int64_t first, int64_t last))

}  // namespace fastprompt
