// SAM's mask head: two transposed 2 x 2 convolutions of stride 2 and the product with the masks' vectors, in one pass.
#pragma once
#include <cstdint>

#include "common/bf16.h"
#include "decoder/low_rank.h"

namespace fastprompt {

struct MaskHead {
  int64_t prompts, masks, height, width;  // of the image in tokens
  int64_t channels, middle, depth;        // C -> middle -> depth
  int64_t images;                         // of the details and of `prepared`
  const float* image;                     // (prompts, channels, height, width); null: `low_rank` has them
  const float *weight1, *bias1;           // (channels, middle, 2, 2), (middle)
  const float *norm_weight, *norm_bias;   // (middle): LayerNorm over the channels
  const float *weight2, *bias2;           // (middle, depth, 2, 2), (depth)
  const float* vectors;                   // (prompts, masks, depth)
  const float *detail1, *detail2;         // (images, middle, 2 h, 2 w), (images, depth, 4 h, 4 w), added; or null
  const void* prepared;                   // of low_rank_prepare, with weight1 as W_up
  const float* low_rank;                  // of low_rank
  float* out;                             // (prompts, masks, 4 height, 4 width)
  float eps;
  LowRankLayout layout;  // of prepared
  Precision precision;
  int threads;

  // Made by mask_head where the convolutions are computed in bfloat16: their left operands.
  const Bf16* engine;
  Bf16Operand low_rank_rows;  // (prompts, 4 middle, rank)
  Bf16Operand packed2;        // (4 depth, middle)
};

void mask_head(const MaskHead& args);

FP_DECLARE_ISA(void, mask_head_tile, (const MaskHead& args, int64_t prompt, int64_t tile))

}  // namespace fastprompt
