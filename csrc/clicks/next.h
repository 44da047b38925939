// The click simulator of interactive segmentation: where a person would click to correct a prediction.
#pragma once
#include <cstdint>

#include "common/isa.h"
#include "metrics/mask_row.h"

namespace fastprompt {

// Errors are of two kinds, missed and false pixels. The click goes to the pixel that is farthest from all pixels
// without an error of its kind; pixels outside of the image have none. Equal distances: first the false pixels, then
// the first pixel in the order of the rows.
struct NextClick {
  Masks pred;              // (images, height, width)
  const uint8_t* target;   // (images, height, width), non-zero = inside
  int ignore;              // pixels with this target are no errors; -1: none
  const int32_t* clicked;  // (images, clicks, 2): x, y of pixels that cannot be chosen; any value is allowed
  int64_t images, clicks, height, width;  // height and width at most kLargestSide
  int64_t* out;  // (images, 4): x, y, 1 for a missed and 0 for a false pixel, square of its distance; 0: no error left
  int threads;
};

constexpr int64_t kLargestSide = 32766;  // rows are counted in 16 bits

void next_click(const NextClick& args);

FP_DECLARE_ISA(void, click_of_image, (const NextClick& args, int64_t image))

}  // namespace fastprompt
