#include "common/interrupt.h"
#include "common/scratch.h"
#include "encoder/relative_tile.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

// With weights p = e^(logit - log_weight), recomputed block by block, and g the gradient of out:
//   dv_j = sum_i p_ij g_i      dlogit_ij = p_ij (<g_i, v_j> - <g_i, out_i>)      dk_j = scale sum_i dlogit_ij q_i
//   dq_i = scale sum_j dlogit_ij k_j + sum_y a_iy Rh[y_i - y + h - 1] + the same in x
//   dRh[y_i - y + h - 1] += a_iy q_i, a_iy = sum of dlogit_ij over the keys of row y
class Gradient {
 public:
  Gradient(const RelativeCall& call, const RelativeGradient& g, const TokenSet& set, int64_t head, float* rel_h,
           float* rel_w)
      : a_(call.args),
        g_(g),
        head_{call, set, head},
        width_(a_.width),
        step_(set.block_keys),
        blocks_(head_.blocks()),
        rel_h_(rel_h),
        rel_w_(rel_w),
        memory_(blocks_ * (2 * turned_block() + key_block() + 2 * step_ * width_) + (4 * kQueries + step_) * width_ +
                2 * kQueries * step_ + 64 + 2 * Bias::floats(call)) {
    const int64_t all = blocks_ * step_ * width_;
    keys_ = memory_.data(), turned_keys_ = keys_ + blocks_ * key_block();
    turned_values_ = turned_keys_ + blocks_ * turned_block();
    key_grad_ = turned_values_ + blocks_ * turned_block(), value_grad_ = key_grad_ + all;
    q_ = value_grad_ + all, scaled_ = q_ + kQueries * width_, grad_ = scaled_ + kQueries * width_;
    query_grad_ = grad_ + kQueries * width_, rows_ = query_grad_ + kQueries * width_;
    weights_ = rows_ + step_ * width_, slopes_ = weights_ + kQueries * step_ + 32;
    float* tables = slopes_ + kQueries * step_ + 32;
    bias_.place(call, tables);
    sums_h_ = tables + Bias::floats(call), sums_w_ = sums_h_ + kQueries * bias_.row_h();
  }

  void run() {
    for (int64_t i = 0; i < blocks_ * step_ * width_; ++i) key_grad_[i] = value_grad_[i] = 0;
    for (int64_t b = 0; b < blocks_; ++b) {
      const int64_t first = b * step_, keys = head_.keys_of(b);
      head_.gather(a_.key, first, first + step_, rows_, width_);
      rows_to_slabs(rows_, keys, width_, step_, keys_ + b * key_block());
      turned_to_slabs(rows_, keys, width_, turned_keys_ + b * turned_block());
      head_.gather(a_.value, first, first + step_, rows_, width_);
      turned_to_slabs(rows_, keys, width_, turned_values_ + b * turned_block());
    }
    for (int64_t n = 0; n < head_.set.count; n += kQueries)
      queries(n, n + kQueries < head_.set.count ? n + kQueries : head_.set.count);
    scatter(key_grad_, 0, head_.set.count, kLn2, g_.key_grad);  // it was summed from queries in units of log2
    scatter(value_grad_, 0, head_.set.count, 1, g_.value_grad);
  }

 private:
  int64_t key_block() const { return Slabs::floats(step_, width_); }
  int64_t turned_block() const { return Slabs::floats(width_, step_); }

  void queries(int64_t first, int64_t last) {
    const int64_t rows = last - first;
    load(first, last);
    for (int64_t i = 0; i < rows * bias_.row_h(); ++i) sums_h_[i] = 0;
    for (int64_t i = 0; i < rows * bias_.row_w(); ++i) sums_w_[i] = 0;
    for (int64_t i = 0; i < rows * width_; ++i) query_grad_[i] = 0;
    for (int64_t b = 0; b < blocks_; ++b) block(b, rows);
    for (int64_t i = 0; i < rows * width_; i += N)
      storeu(query_grad_ + i, loadu(query_grad_ + i) * broadcast(a_.scale));
    add_table(head_.call.h, a_.rel_h, rows, sums_h_, bias_.row_h(), rel_h_);
    add_table(head_.call.w, a_.rel_w, rows, sums_w_, bias_.row_w(), rel_w_);
    scatter(query_grad_, first, last, 1, g_.query_grad);
  }

  void load(int64_t first, int64_t last) {
    const int64_t rows = last - first;
    head_.gather(a_.query, first, last, q_, width_);
    bias_.load(head_, first, last, {q_, width_, 1});
    for (int64_t i = 0; i < rows * width_; i += N) storeu(scaled_ + i, loadu(q_ + i) * broadcast(a_.scale * kLog2e));
    head_.gather(head_.like_out(g_.out_grad), first, last, grad_, width_);
    head_.each_run(first, last, [&](const Run& run, int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n) {
        const int64_t i = n - first, token = run.token + n - run.first;
        const float* out = a_.out + head_.out(token);
        vf product = broadcast(0.f);
        for (int64_t d = 0; d < width_; d += N) product = fma(loadu(grad_ + i * width_ + d), loadu(out + d), product);
        mean_[i] = sum(product);
        log_weight_[i] = a_.log_weight[(head_.set.image * a_.heads + head_.head) * a_.tokens + token] * kLog2e;
      }
    });
  }

  void block(int64_t b, int64_t rows) {
    checkpoint();
    const int64_t first = b * step_, keys = head_.keys_of(b), vectors = (keys + N - 1) / N;
    bias_.fill(head_, b, rows, log_weight_, nullptr, weights_, step_, vectors * N);
    multiply_slabs<true>({scaled_, width_, 1}, turned_keys_ + b * turned_block(), width_, weights_, step_, rows,
                         vectors, width_);
    multiply_slabs<false>({grad_, width_, 1}, turned_values_ + b * turned_block(), width_, slopes_, step_, rows,
                          vectors, width_);
    for (int64_t i = 0; i < rows; ++i) {
      const vf mean = broadcast(mean_[i]);
      for (int64_t k = i * step_; k < i * step_ + vectors * N; k += N) {
        const vf weight = exp2(loadu(weights_ + k));
        storeu(weights_ + k, weight);
        storeu(slopes_ + k, weight * (loadu(slopes_ + k) - mean));
      }
      add_to_sums(b, i);
    }
    const int64_t at = first * width_;
    gemm<true>({weights_, 1, step_}, grad_, width_, value_grad_ + at, width_, keys, width_ / N, rows);
    gemm<true>({slopes_, 1, step_}, scaled_, width_, key_grad_ + at, width_, keys, width_ / N, rows);
    multiply_slabs<true>({slopes_, step_, 1}, keys_ + b * key_block(), step_, query_grad_, width_, rows, width_ / N,
                         keys);
  }

  // The slopes of query i, summed over the rows and over the columns of the grid.
  void add_to_sums(int64_t b, int64_t i) {
    float *high = sums_h_ + bias_.at_h(i), *wide = sums_w_ + bias_.at_w(i);
    head_.each_run(b * step_, (b + 1) * step_, [&](const Run& run, int64_t from, int64_t) {
      const float* slope = slopes_ + i * step_ + from - b * step_;
      float* to = wide + run.x;
      vf total = broadcast(0.f);
      int64_t k = 0;
      for (; k + N <= run.count; k += N) {
        const vf x = loadu(slope + k);
        total = total + x;
        storeu(to + k, loadu(to + k) + x);
      }
      float rest = 0;
      for (; k < run.count; ++k) to[k] += slope[k], rest += slope[k];
      high[run.y] += (run.count >= N ? sum(total) : 0) + rest;
    });
  }

  // NOTE: column j of the sums belongs to row 2 size - 2 - j of the table: both are read backwards.
  void add_table(const RelativeTable& t, const float* rel, int64_t rows, const float* sums, int64_t row, float* grad) {
    const int64_t last = 2 * t.size - 2;
    gemm<true>({sums, row, 1}, rel + last * width_, -width_, query_grad_, width_, rows, width_ / N, last + 1);
    gemm<true>({sums, 1, row}, q_, width_, grad + last * width_, -width_, last + 1, width_ / N, rows);
  }

  void scatter(const float* rows, int64_t first, int64_t last, float factor, float* out) const {
    head_.each_run(first, last, [&](const Run& run, int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n) {
        const float* x = rows + (n - first) * width_;
        float* y = out + head_.out(run.token + n - run.first);
        for (int64_t d = 0; d < width_; d += N) storeu(y + d, loadu(x + d) * broadcast(factor));
      }
    });
  }

  const RelativeAttention& a_;
  const RelativeGradient& g_;
  const HeadOf head_;
  const int64_t width_, step_, blocks_;  // step_: keys of a block
  float *rel_h_, *rel_w_;
  Scratch memory_;
  Bias bias_;
  float *keys_, *turned_keys_, *turned_values_, *key_grad_, *value_grad_;  // of all blocks
  float *q_, *scaled_, *grad_, *query_grad_;                               // (kQueries, width)
  float* rows_;                                                            // (step, width)
  float *weights_, *slopes_;                                               // (kQueries, step)
  float *sums_h_, *sums_w_;                                                // as the products in Bias
  float mean_[kQueries], log_weight_[kQueries];
};

}  // namespace

void relative_head_gradient(const RelativeCall& call, const RelativeGradient& args, const TokenSet& set, int64_t head,
                            float* rel_h, float* rel_w) {
  Gradient(call, args, set, head, rel_h, rel_w).run();
}

}  // namespace FP_ISA
}  // namespace fastprompt
