// Small matrix products on a tile of image tokens: out[m][n] (+)= sum over k of a[m][k] b[k][n].
// b and out have contiguous rows of whole vectors; a is small, or a weight.
#pragma once
#include "common/math.h"

namespace fastprompt {
namespace FP_ISA {

// Rows of a register block: two vectors wide, 16 accumulators of 32 registers, 12 of 16, which hides the latency of FMA
// (8 accumulators: 4 to 7 % less); four vectors wide, with 32 registers only, 6 rows: 24 accumulators and fewer loads,
// 3 % more in SAM's encoder.
constexpr int kRows = N == 16 ? 8 : 6, kWideRows = 6;

// a[m][k] is data[m * row + k * step]. Nothing is packed: with row = 1 or step = 1 a block reads few cache lines.
struct Left {
  const float* data;
  ptrdiff_t row, step;
};

template <int M, int V, bool Add>
static inline void gemm_block(const Left& a, const float* b, ptrdiff_t b_row, float* out, ptrdiff_t out_row,
                              int64_t depth) {
  vf sum[M][V];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) sum[m][v] = broadcast(0.f);
  const float* left = a.data;
  for (int64_t k = 0; k < depth; ++k, left += a.step, b += b_row) {
    vf right[V];
    for (int v = 0; v < V; ++v) right[v] = loadu(b + v * N);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const vf x = broadcast(left[m * a.row]);
      for (int v = 0; v < V; ++v) sum[m][v] = fma(x, right[v], sum[m][v]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) {
      float* to = out + m * out_row + v * N;
      storeu(to, Add ? loadu(to) + sum[m][v] : sum[m][v]);  // at the end: a short sum has a smaller rounding error
    }
}

// The last rows, fewer than a block has.
template <int M, int V, bool Add>
static inline void gemm_rest(const Left& a, const float* b, ptrdiff_t b_row, float* out, ptrdiff_t out_row,
                             int64_t depth, int64_t rows) {
  if constexpr (M > 0) {
    if (rows == M) return gemm_block<M, V, Add>(a, b, b_row, out, out_row, depth);
    gemm_rest<M - 1, V, Add>(a, b, b_row, out, out_row, depth, rows);
  }
}

template <int V, bool Add>
static inline void gemm_columns(Left a, const float* b, ptrdiff_t b_row, float* out, ptrdiff_t out_row, int64_t rows,
                                int64_t depth) {
  constexpr int M = V == 4 ? kWideRows : kRows;
  for (; rows >= M; rows -= M, a.data += M * a.row, out += M * out_row)
    gemm_block<M, V, Add>(a, b, b_row, out, out_row, depth);
  gemm_rest<M - 1, V, Add>(a, b, b_row, out, out_row, depth, rows);
}

template <bool Add>
static inline void gemm(const Left& a, const float* b, ptrdiff_t b_row, float* out, ptrdiff_t out_row, int64_t rows,
                        int64_t vectors, int64_t depth) {
  int64_t v = 0;
  if constexpr (N == 16)
    for (; v + 4 <= vectors; v += 4) gemm_columns<4, Add>(a, b + v * N, b_row, out + v * N, out_row, rows, depth);
  for (; v + 2 <= vectors; v += 2) gemm_columns<2, Add>(a, b + v * N, b_row, out + v * N, out_row, rows, depth);
  if (v < vectors) gemm_columns<1, Add>(a, b + v * N, b_row, out + v * N, out_row, rows, depth);
}

// out[t][r] = sum over k of x[t][k] weight[r][k], a linear layer on few rows: both are read along k, whose length is a
// multiple of N, so the weights need no packing and no lane is idle.
// NOTE: with 7 tokens in the 16 lanes of a vector instead, SAM's layers took 2.7 times as long.
template <int R, int T>
static inline void linear_block(const float* weight, const float* x, int64_t x_row, float* out, int64_t out_row,
                                int64_t depth) {
  vf sums[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) sums[r][t] = broadcast(0.f);
  for (int64_t k = 0; k < depth; k += N) {
    vf w[R];
    for (int r = 0; r < R; ++r) {
      w[r] = loadu(weight + r * depth + k);
      if (N * sizeof(float) == 64 || k % 16 == 0) __builtin_prefetch(weight + (r + 2 * R) * depth + k);
    }
    for (int t = 0; t < T; ++t) {
      const vf value = loadu(x + t * x_row + k);
      for (int r = 0; r < R; ++r) sums[r][t] = fma(w[r], value, sums[r][t]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) out[t * out_row + r] = sum(sums[r][t]);
}

template <int R>
static inline void linear_rows(const float* weight, const float* x, int64_t x_row, float* out, int64_t out_row,
                               int64_t tokens, int64_t depth) {
  for (; tokens >= 4; tokens -= 4, x += 4 * x_row, out += 4 * out_row)
    linear_block<R, 4>(weight, x, x_row, out, out_row, depth);
  if (tokens == 3) linear_block<R, 3>(weight, x, x_row, out, out_row, depth);
  if (tokens == 2) linear_block<R, 2>(weight, x, x_row, out, out_row, depth);
  if (tokens == 1) linear_block<R, 1>(weight, x, x_row, out, out_row, depth);
}

// `weight` (rows x depth) has contiguous rows.
static inline void linear(const float* weight, const float* x, int64_t x_row, float* out, int64_t out_row, int64_t rows,
                          int64_t tokens, int64_t depth) {
  constexpr int R = N == 16 ? 4 : 2;  // 16 or 8 sums in registers
  int64_t r = 0;
  for (; r + R <= rows; r += R) linear_rows<R>(weight + r * depth, x, x_row, out + r, out_row, tokens, depth);
  for (; r < rows; ++r) linear_rows<1>(weight + r * depth, x, x_row, out + r, out_row, tokens, depth);
}

}  // namespace FP_ISA
}  // namespace fastprompt
