// SAM's mask head: two transposed 2 x 2 convolutions of stride 2 and the product with the masks' vectors, in one pass.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

struct MaskHead {
  int64_t prompts, masks, height, width;  // of the image in tokens
  int64_t channels, middle, depth;        // C -> middle -> depth
  const float* image;                     // (prompts, channels, height, width)
  const float *weight1, *bias1;           // (2, 2, middle, channels), (middle)
  const float *norm_weight, *norm_bias;   // (middle): LayerNorm over the channels
  float eps;
  const float *weight2, *bias2;    // (2, 2, depth, middle), (depth)
  const float* vectors;            // (prompts, masks, depth)
  const float *detail1, *detail2;  // (images, middle, 2 h, 2 w), (images, depth, 4 h, 4 w), added; or null
  int64_t images;
  float* out;  // (prompts, masks, 4 height, 4 width)
  int threads;
};

void mask_head(const MaskHead& args);

FP_DECLARE_ISA(void, mask_head_row, (const MaskHead& args, int64_t prompt, int64_t y))

}  // namespace fastprompt
