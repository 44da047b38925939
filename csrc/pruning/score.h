// The largest cosine of every token to some prompt embeddings, in one read of the tokens.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

struct CosineScores {
  int64_t batch, tokens, channels, prompts;
  const float* data;      // (batch, tokens, channels); channels are contiguous
  int64_t stride[2];      // of an image and of a token, in floats
  const float* prompt;    // (batch, prompts, channels), or (1, prompts, channels) for all images
  int64_t prompt_images;  // batch or 1
  float* out;             // (batch, tokens); NaN where the token or a prompt has one, 0 of a token of zeros
  int threads;
};

void cosine_scores(const CosineScores& args);

constexpr int64_t kPromptUnit = 16;  // rows of prompts are padded to whole vectors of any instruction set

// Prompts of one image with length 1, in rows of `width` floats.
FP_DECLARE_ISA(void, unit_prompts, (const CosineScores& args, int64_t image, int64_t width, float* out))
FP_DECLARE_ISA(void, score_tokens,
               (const CosineScores& args, const float* unit, int64_t width, int64_t image, int64_t first, int64_t last))

}  // namespace fastprompt
