// Attention between few prompt tokens and many image tokens, in one pass over the image.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

constexpr int64_t kPromptUnit = 16;  // of which channels and widths of heads are multiples

// absorbed: the prompt side carries the image side's projections, one row of `channels` numbers for each head and token
// (row h T + t), and the image tokens are used as they are. projected: the prompt side has the head's own `width`, and
// the image tokens are projected, a tile at a time. What is cheaper depends on T H against the inner width H d.
enum class Form : int { none, absorbed, projected };

// Every image token attends to the prompt tokens; then residual and LayerNorm over the channels.
struct ImageToPrompt {
  Form form;
  const float* key;                        // (prompts, H T, channels) or (prompts, H, T, width); scale included
  const float* key_bias;                   // (prompts, H T): what the query's bias adds to a logit
  const float* value;                      // as key
  const float *query_weight, *out_weight;  // projected: (H width, channels), (channels, H width)
  const float* out_bias;                   // (channels)
  bool residual;                           // add the image token
  const float *norm_weight, *norm_bias;    // (channels); null: no LayerNorm
  float eps;
};

// Every prompt token attends to the image tokens (to those that ImageToPrompt has just made, if it is there).
struct PromptToImage {
  Form form;
  const float* query;                      // (prompts, H T, channels) or (prompts, H, T, width); scale included
  const float *key_weight, *value_weight;  // projected: (H width, channels), (channels, H width)
  const float* bias;                       // (prompts, T, pixels), added to the logits, -inf allowed; or null
  float* out;  // (prompts, H T, channels) or (prompts, H, T, width): before value bias and output projection
};

struct PromptPass {
  int64_t images, prompts, channels, pixels, tokens, heads, width;
  const float* image;      // (images, channels, pixels); `prompts` is a multiple of `images`
  const float* position;   // (channels, pixels), added to the image for the logits; or null
  const int64_t* lengths;  // (prompts): tokens that exist; null: all
  ImageToPrompt to_prompt;
  PromptToImage to_image;
  float* image_out;  // (prompts, channels, pixels), or null
  int threads;
};

void prompt_pass(const PromptPass& args);

// What to_image gathers from some tiles of the image: sums of e^(logit - peak) and of the values weighted with it.
struct Partial {
  float *peak, *weight, *value;  // (H T), (H T), (H T, channels or width)
};

FP_DECLARE_ISA(int64_t, prompt_tile, ())
FP_DECLARE_ISA(void, prompt_tiles, (const PromptPass& args, int64_t prompt, int64_t first, int64_t last, Partial out))
FP_DECLARE_ISA(void, prompt_merge, (const PromptPass& args, int64_t prompt, const Partial* parts, int count))

}  // namespace fastprompt
