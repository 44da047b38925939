// Masks from low-resolution logits: bilinear resizing, threshold, area, box and stability in one pass over the output.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

enum class MaskKind : int { logits, bytes, bits };  // float32; 0 or 1; the same packed, lowest bit first, rows padded

// Output n is the sum over k < count of weight[k * size + n] times input index[k * size + n].
struct Resizing {
  int64_t size, count;
  const int32_t* index;
  const float* weight;
};

struct MaskFacts {
  int64_t area, above, below;  // pixels over the threshold, over threshold + offset, over threshold - offset
  int64_t x0, y0, x1, y1;      // of the pixels over the threshold, inclusive; 0 without any
};

struct ResizeMasks {
  int64_t masks, height, width;
  const float* logits;     // (masks, height, width)
  Resizing rows, columns;  // the resizing of either axis
  float threshold, offset;
  MaskKind kind;
  void* out;         // (masks, rows.size, columns.size), or that many bytes of bits
  MaskFacts* facts;  // (masks), or null: logits, and nothing is counted
  int threads;
};

void resize_masks(const ResizeMasks& args);

FP_DECLARE_ISA(void, resize_band,
               (const ResizeMasks& args, int64_t mask, int64_t first, int64_t last, MaskFacts* facts))

}  // namespace fastprompt
