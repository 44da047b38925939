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

struct Box {
  float x0, y0, x1, y1;  // x0 <= x1, y0 <= y1, none a NaN
};

struct Tile {
  int64_t y0, y1, x0, x1;  // pixels from, up to and without
};

// The pixels of a tile of a map. The boxes change their order.
FP_DECLARE_ISA(void, box_tile, (const BoxMaps& args, float* map, Box* boxes, int64_t count, const Tile& tile))

}  // namespace fastprompt
