// The softmax of attention over blocks of keys: a query's sum of weighted values is relative to the largest logit so
// far, and is rescaled when a later one passes it by much.
#pragma once
#include "common/slabs.h"

namespace fastprompt {
namespace FP_ISA {

constexpr float kSlack = 12;  // in units of log2: a peak may be passed by this much before the sums are rescaled

class OnlineSoftmax {  // of up to kQueries queries
 public:
  static int64_t floats(int64_t row) { return kQueries * (row + N); }
  // A row of sums has `width` numbers, and `row` floats of memory: whole vectors.
  void place(float* memory, int64_t width, int64_t row) {
    sums_ = memory, totals_ = memory + kQueries * row;
    width_ = width, row_ = row;
  }

  float* sums() { return sums_; }
  float* peaks() { return peak_; }
  void begin(int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) peak_[i] = 0;
  }

  // Logits of query i, in units of log2 and relative to `base`, become weights; the peak moves if it must.
  void weigh(int64_t i, bool first, float base, float* logits, int64_t vectors) {
    vf most = loadu(logits);
    for (int64_t v = 1; v < vectors; ++v) most = max(loadu(logits + v * N), most);
    const float top = base + maximum(most);
    if (first || top > peak_[i] + kSlack) {
      if (!first) rescale(i, peak_[i] - top);
      peak_[i] = top;
    }
    const vf shift = broadcast(base - peak_[i]);
    vf total = first ? broadcast(0.f) : loadu(totals_ + i * N);
    for (int64_t v = 0; v < vectors; ++v) {
      const vf weight = exp2(loadu(logits + v * N) + shift);
      storeu(logits + v * N, weight);
      total = total + weight;
    }
    storeu(totals_ + i * N, total);
  }

  // The mean of the values; returns the log of the sum of e^logit.
  float finish(int64_t i, float* out) {
    const float total = sum(loadu(totals_ + i * N));
    const vf share = broadcast(1.f / total);
    float* row = sums_ + i * row_;
    for (int64_t d = 0; d < width_; d += N) storeu(row + d, loadu(row + d) * share);
    copy_floats(row, out, width_);
    return (peak_[i] + __builtin_log2f(total)) * kLn2;
  }

 private:
  void rescale(int64_t i, float log2_factor) {
    const vf factor = exp2(broadcast(log2_factor));
    storeu(totals_ + i * N, loadu(totals_ + i * N) * factor);
    for (float* x = sums_ + i * row_; x < sums_ + i * row_ + width_; x += N) storeu(x, loadu(x) * factor);
  }

  float *sums_, *totals_;
  int64_t width_, row_;
  float peak_[kQueries];  // in units of log2
};

}  // namespace FP_ISA
}  // namespace fastprompt
