// Maps of boxes: which pixels lie in one, and the signed distance to the nearest outline.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

struct BoxMaps {
  int64_t images, boxes, height, width;
  const float* corners;     // (images, boxes, 4): x0, y0, x1, y1, inclusive, in either order; one with a NaN is no box
  bool distance;            // else 1 in a box, 0 outside
  float offset, low, high;  // distance: offset + d within [low, high], d below 0 inside a box
  float* out;               // (images, height, width)
  int64_t image_stride;     // floats from an image of `out` to the next
  int threads;
};

void box_maps(const BoxMaps& args);

FP_DECLARE_ISA(void, box_rows, (const BoxMaps& args, int64_t image, int64_t first_row, int64_t last_row))

}  // namespace fastprompt
