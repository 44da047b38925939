// Cosines between the pixels of a feature map and some rows (prototypes, texts), in one read of the features.
#pragma once
#include <cstdint>

#include "common/bf16.h"
#include "common/isa.h"

namespace fastprompt {

enum class SimilarityOutput : int { cosines, softmax, argmax };

struct Similarity {
  int64_t batch, channels, pixels, rows;
  const float* features;  // (batch, channels, pixels)
  const float* row;       // (row_images, rows, channels)
  int64_t row_images;     // batch or 1
  float scale, eps;       // scale f . r / (max(|f|, eps) max(|r|, eps))
  float temperature;      // instead of the scale, in the softmax over the rows
  SimilarityOutput kind;
  float sharpest;  // rows whose largest share in that softmax, over all pixels, is less, get the cosine -100
  float* out;      // cosines, softmax: (batch, rows, pixels)
  int64_t* index;  // argmax: (batch, pixels), the lowest of equal ones
  Precision precision;
  int threads;
};

void similarity(const Similarity& args);

// ---------------------------------------------------------------- what the tasks of a call share

constexpr int64_t kSimilarityTile = kBf16Columns;  // pixels side by side
constexpr int64_t kFewRows = 8;          // up to here the features are streamed, beyond it is a matrix product
constexpr int64_t kSimilarityUnit = 32;  // floats: rows are padded with zeros to it

struct SimilarityRows {
  const float* unit;     // (rows, width), of length 1
  const uint16_t* bf16;  // the same, (rows padded to kBf16Rows, width); null: float32
  int64_t width;
  const Bf16* engine;
  const float* penalty;  // (rows): 0, or what a row is set to; null: none
};

// The rows of one image with length 1; `out` (padded, width).
FP_DECLARE_ISA(void, similarity_unit,
               (const Similarity& args, int64_t image, int64_t padded, int64_t width, float* out))
// Pixels [first, last) of an image.
FP_DECLARE_ISA(void, similarity_stream,
               (const Similarity& args, const SimilarityRows& rows, int64_t image, int64_t first, int64_t last))
// At most kSimilarityTile pixels. confidence (rows): the largest share of every row in the softmax here; null: `out`.
FP_DECLARE_ISA(void, similarity_tile,
               (const Similarity& args, const SimilarityRows& rows, int64_t image, int64_t first, int64_t last,
                float* confidence))

}  // namespace fastprompt
