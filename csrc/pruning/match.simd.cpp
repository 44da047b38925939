#include "common/gemm.h"
#include "common/scratch.h"
#include "pruning/merge.h"
#include "pruning/unit.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

void keep_largest(const float* row, int64_t columns, int64_t first_column, float* best, int32_t* partner) {
  vf peak = broadcast(*best);
  int64_t j = 0;
  for (; j + N <= columns; j += N) peak = max(loadu(row + j), peak);  // NaN gives way
  float most = maximum(peak);
  for (; j < columns; ++j) most = row[j] > most ? row[j] : most;
  if (!(most > *best)) return;  // seldom passed: a few panels of many have a larger one
  for (j = 0; row[j] != most;) ++j;
  *best = most, *partner = static_cast<int32_t>(first_column + j);
}

}  // namespace

void match_prepare(const MatchTokens& a, int64_t image, float* evens, float* odds) {
  const float* metric = a.metric + image * a.tokens * a.width;
  for (int64_t i = 0; i < a.evens; ++i) {
    const float* from = metric + (a.first_even + 2 * i) * a.width;
    const float length = length_of(squares(from, a.width));
    for (int64_t d = 0; d < a.width; ++d) evens[i * a.width + d] = from[d] / length;
  }
  const int64_t panels = (a.odds + kPanel - 1) / kPanel;
  for (int64_t j = 0; j < panels * kPanel; ++j) {
    const float* from = metric + (a.first_odd + 2 * j) * a.width;
    float* to = odds + j / kPanel * a.width * kPanel + j % kPanel;
    const bool there = j < a.odds;
    const float length = there ? length_of(squares(from, a.width)) : 1.f;
    for (int64_t d = 0; d < a.width; ++d) to[d * kPanel] = there ? from[d] / length : 0.f;
  }
}

void match_rows(const MatchTokens& a, const float* evens, const float* odds, int64_t first, int64_t last, float* best,
                int32_t* partner) {
  const int64_t rows = last - first, count = a.odds;
  Scratch memory(kMatchRows * kPanel);
  float* cosine = memory.data();
  for (int64_t i = 0; i < rows; ++i) best[i] = -__builtin_inff(), partner[i] = 0;
  for (int64_t j = 0; j < count; j += kPanel, odds += a.width * kPanel) {
    gemm<false>({evens + first * a.width, a.width, 1}, odds, kPanel, cosine, kPanel, rows, kPanel / N, a.width);
    const int64_t columns = count - j < kPanel ? count - j : kPanel;
    for (int64_t i = 0; i < rows; ++i) keep_largest(cosine + i * kPanel, columns, j, best + i, partner + i);
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
