// Blocks of queries, keys and values of attention, and their products in float32.
#pragma once
#include "common/gemm.h"

namespace fastprompt {
namespace FP_ISA {

constexpr int64_t kQueries = 64;   // rows of a block
constexpr float kLowest = -3e38f;  // below every logit
constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;

// Whole vectors, then number by number: neither reads nor writes behind the last.
static inline void copy_floats(const float* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + N <= count; i += N) storeu(to + i, loadu(from + i));
  for (; i < count; ++i) to[i] = from[i];
}

// The right side of a product, in slabs of two vectors: a slab is what the rows of the left side walk along, and lies
// in one piece, for rows 512 bytes apart would share a quarter of the first-level cache.
struct Slabs {
  static constexpr int64_t kColumns = 2 * N;
  static int64_t floats(int64_t rows, int64_t columns) {
    return rows * ((columns + kColumns - 1) / kColumns * kColumns);
  }
};

// out (rows x vectors) (+)= a (rows x depth) b, with b of `b_rows` rows (at least depth) in slabs.
template <bool Add>
static inline void multiply_slabs(const Left& a, const float* b, int64_t b_rows, float* out, ptrdiff_t out_row,
                                  int64_t rows, int64_t vectors, int64_t depth) {
  constexpr int64_t C = Slabs::kColumns;
  int64_t v = 0;
  for (; v + 2 <= vectors; v += 2, b += C * b_rows) gemm_columns<2, Add>(a, b, C, out + v * N, out_row, rows, depth);
  if (v < vectors) gemm_columns<1, Add>(a, b, C, out + v * N, out_row, rows, depth);
}

// Slabs of `slab_rows` rows: row n of `rows`.
static inline void rows_to_slabs(const float* rows, int64_t count, int64_t width, int64_t slab_rows, float* slabs) {
  constexpr int64_t C = Slabs::kColumns;
  for (int64_t d = 0; d < width; d += N) {
    float* to = slabs + d / C * C * slab_rows + d % C;
    for (int64_t n = 0; n < count; ++n) storeu(to + n * C, loadu(rows + n * width + d));
  }
}

// The rows, turned: row d of the slabs is column d of `rows`, with zeros behind `count` up to the next whole vector.
static inline void turned_to_slabs(float* rows, int64_t count, int64_t width, float* slabs) {
  constexpr int64_t C = Slabs::kColumns;
  const int64_t end = (count + N - 1) / N * N;
  for (int64_t i = count * width; i < end * width; ++i) rows[i] = 0;
  for (int64_t n = 0; n < end; n += N)
    for (int64_t d = 0; d < width; d += N)
      transpose_tile(rows + n * width + d, width, slabs + n / C * C * width + n % C + d * C, C);
}

}  // namespace FP_ISA
}  // namespace fastprompt
