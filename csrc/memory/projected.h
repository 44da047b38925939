// Many queries read a memory whose keys are a linear layer of it, turned by axial positions:
//
//   out = softmax(scale R q (R' (W s + b))^T) v
//
// In SAM 2 a token s of the memory has 64 numbers, a key 256. Its first half is turned by its column x, its second by
// its row y, so that a logit is <A[x] + B[y], s> with A[x] = W1^T R'x^T q1 and B[y] = W2^T R'y^T q2: 64 numbers a query
// for every column and every row. That is less than half of the operations of <q, k>, and no key is ever made.
#pragma once
#include <cstdint>

#include "common/bf16.h"
#include "common/isa.h"

namespace fastprompt {

struct ProjectedRead {
  int64_t images, queries, keys;
  int64_t width, depth;            // of a query, and of a token of the memory: multiples of 32, of 16
  int64_t rows, columns;           // of the grid of a frame; the keys are whole frames,
  int64_t unturned;                // and so many others behind them
  const float* query;              // (images, queries, width)
  const float *cos, *sin;          // (queries, width), by which pairs (2 i, 2 i + 1) of a query are turned
  const float *source, *value;     // (images, keys, depth): what keys are made of, and what is read
  const float *weight, *bias;      // (width, depth), (width)
  const float *key_cos, *key_sin;  // (rows columns, width)
  float scale;
  float* out;           // (images, queries, depth)
  Precision precision;  // of the products where keys are made
  int threads;
};

// Keys are made where that takes less time: with an engine for this precision, for few frames, for positions that are
// not axial.
void projected_read(const ProjectedRead& args);

// ---------------------------------------------------------------- what the tasks of a call share

constexpr int64_t kProjectedQueries = 64;  // of a task, at most

struct ProjectedImage {
  const ProjectedRead& args;
  int64_t image;
  float* weights;           // (2, depth + 1, width / 2): W^T and b below it, of the two halves of a key
  float *sources, *values;  // of the frames, by position: (positions, depth, frames), (positions, frames, depth)

  FP_INLINE int64_t positions() const { return args.rows * args.columns; }
  FP_INLINE int64_t frames() const { return (args.keys - args.unturned) / positions(); }
};

FP_DECLARE_ISA(void, projected_pack, (const ProjectedImage& image, int64_t row))
FP_DECLARE_ISA(void, projected_queries, (const ProjectedImage& image, int64_t first, int64_t last))

}  // namespace fastprompt
