// PFENet's prior mask before its normalisation: how similar the most similar pixel of the support is to each of the
// query.
#pragma once
#include <cstdint>

#include "common/bf16.h"
#include "common/isa.h"

namespace fastprompt {

// out[q] = max over p of <query_q, m_p support_p> / (|query_q| |m_p support_p| + eps)
constexpr float kPriorLevelEps = 1e-7f;  // PFENet's, of the normalisation to [0, 1]

struct PriorMask {
  int64_t pairs, shots, channels, query_pixels, support_pixels;
  const float* query;    // (pairs / shots, channels, query_pixels)
  const float* support;  // (pairs, channels, support_pixels)
  const float* mask;     // (pairs, support_pixels); where it is 0 the similarity is 0, and nothing is read
  float eps;
  float* out;  // (pairs, query_pixels), every row from 0 to 1; NaN where a length is not finite
  Precision precision;
  int threads;
};

void prior_mask(const PriorMask& args);

// ---------------------------------------------------------------- what the tasks of a call share

constexpr int64_t kPriorTile = 128;   // query pixels of a task
constexpr int64_t kPriorDepth = 256;  // channels at a time: 16 KiB of a slab of the query stay in the L1 cache

// The support pixels that count, masked: rows in blocks of kPriorDepth channels, (blocks, rows, kPriorDepth).
struct PriorSupport {
  const int32_t* pixel;  // (count)
  int64_t count, rows;   // rows: count, padded to kBf16Rows
  float* data;
  uint16_t* bf16;  // the same, or null
  float* length;   // (rows)
  const Bf16* engine;
};

int64_t prior_blocks(const PriorMask& args);

FP_DECLARE_ISA(void, prior_pack,
               (const PriorMask& args, const PriorSupport& support, int64_t pair, int64_t first, int64_t last))
FP_DECLARE_ISA(void, prior_tile,
               (const PriorMask& args, const PriorSupport& support, int64_t pair, int64_t first, int64_t last))

}  // namespace fastprompt
