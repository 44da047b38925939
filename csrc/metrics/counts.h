// Pixels that two masks have in common, and each of its own: all that IoU, Dice and their kin are made of.
#pragma once
#include <cstdint>

#include "common/isa.h"
#include "metrics/mask_row.h"

namespace fastprompt {

struct OverlapCounts {
  Masks pred;             // (masks, pixels)
  const uint8_t* target;  // (masks, pixels), non-zero = inside
  int ignore;             // pixels with this target count nowhere; -1: none
  int64_t masks, pixels;
  int64_t* out;  // (masks, 4): intersection, prediction, target, pixels that count
  int threads;
};

// Label maps: out[c] = pixels with label c in both, in the prediction, in the target. Labels are 0 … classes - 1;
// pixels with another target, or the ignored one, count nowhere; another prediction only counts as a wrong one.
struct ClassCounts {
  const void *pred, *target;  // (pixels) integers of `bytes` 1 (unsigned) or 8 (signed)
  int bytes;
  int64_t pixels, classes, ignore;  // ignore: -1 for none
  int64_t* out;                     // (classes, 3)
};

// Masks of one bit a pixel, rows of 64-bit words: out[a, b] = pixels that mask a and mask b have in common.
struct PairCounts {
  const uint64_t *first, *second;  // (rows, words), (columns, words)
  int64_t rows, columns, words;
  int64_t* out;  // (rows, columns)
  int threads;
};

void overlap_counts(const OverlapCounts& args);
void class_counts(const ClassCounts& args);
void pair_counts(const PairCounts& args);

FP_DECLARE_ISA(void, overlap_of_mask, (const OverlapCounts& args, int64_t mask))
FP_DECLARE_ISA(void, pairs_of_row, (const PairCounts& args, int64_t row))

}  // namespace fastprompt
