// First arrival of a front that leaves the seeds at time 0:  |grad T(p)| = slowness(p).
//   slowness = lambda * G + (1 - lambda) + sqrt(eps)
//   G(p)     = mean over the spatial axes of |I(next) - I(p)|, summed over channels; I = 0 behind the last pixel
#pragma once
#include <cstdint>

#include "common/view.h"

namespace fastprompt {

struct Eikonal {
  View image;  // (1, channels, nz, ny, nx) float32
  View seeds;  // (1, 1, nz, ny, nx) uint8: non-zero = seed
  float* out;  // (nz, ny, nx), contiguous: time >= 0, +inf where nothing arrives
  int64_t channels, nz, ny, nx;
  bool volume;        // G is the mean of three axes; else of y and x, and nz = 1
  float grad_weight;  // lambda
  float step_weight;  // 1 - lambda
  float spacing[3];   // z, y, x
};

void eikonal_distance(const Eikonal& args);

}  // namespace fastprompt
