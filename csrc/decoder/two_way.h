// SAM's two-way transformer: prompt tokens and image tokens attend to each other, layer by layer, in one pass over the
// image for each layer and one for the final attention.
#pragma once
#include <cstdint>

#include "attention/prompt.h"
#include "common/layers.h"

namespace fastprompt {

struct AttentionWeights {
  Linear query, key, value, out;
};

struct TwoWayLayer {
  AttentionWeights self;
  LayerNorm norm1;
  AttentionWeights to_image;  // prompt to image
  LayerNorm norm2;
  Linear mlp1, mlp2;
  LayerNorm norm3;
  AttentionWeights to_prompt;  // image to prompt
  LayerNorm norm4;
};

struct TwoWay {
  int64_t images, prompts, channels, pixels, tokens, heads;
  int64_t width;  // of a head in the cross attentions; C / heads in the self attention
  int64_t mlp;    // inner width
  int64_t depth;
  const TwoWayLayer* layers;
  AttentionWeights final;
  LayerNorm final_norm;
  const float* prompt;   // (prompts, T, C): start and position of the prompt tokens
  const void* prepared;  // of two_way_prepare
  float* prompt_out;     // (prompts, T, C)
  float* image_out;      // (prompts, C, pixels)
  int threads;
};

// Image tokens of the largest tile of any instruction set: what is prepared has room for whole ones.
constexpr int64_t kLargestTile = 64;

// What the first layer needs of the images alone: tokens, positions, and its projections of both.
struct TwoWayImage {
  int64_t images, channels, pixels, inner;
  const float *image, *position;  // (images, C, pixels), (C, pixels)
  Linear key, value, query;       // of layer 0: to_image.key, to_image.value, to_prompt.query
  float* out;                     // (images, tiles, 2 C + 3 inner, tile)
  int threads;
};

void two_way_prepare(const TwoWayImage& args);
void two_way(const TwoWay& args);

FP_DECLARE_ISA(void, two_way_prepare_tile, (const TwoWayImage& args, int64_t image, int64_t tile))
FP_DECLARE_ISA(void, two_way_prompt, (const TwoWay& args, int64_t prompt, int threads))

}  // namespace fastprompt
