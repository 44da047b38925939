// Predictions on their way to a kernel: masks in bytes as they are, probabilities and logits against a threshold.
#pragma once
#include <cstdint>

#include "common/isa.h"
#include "common/view.h"

namespace fastprompt {

// Contiguous masks of bytes (non-zero = inside), or floats: x > threshold = inside, so a NaN is outside.
struct Masks {
  const void* data;
  DType dtype;  // u8 or f32
  float threshold;
};

// `n` pixels from `from` on as bytes; floats are compared into `room`.
FP_INLINE const uint8_t* mask_pixels(const Masks& masks, int64_t from, int64_t n, uint8_t* room) {
  if (masks.dtype == DType::u8) return static_cast<const uint8_t*>(masks.data) + from;
  const float* x = static_cast<const float*>(masks.data) + from;
  for (int64_t k = 0; k < n; ++k) room[k] = x[k] > masks.threshold;
  return room;
}

}  // namespace fastprompt
