// What the forward and the backward pass of relative-position attention do to a block of tokens of one head.
#pragma once
#include "common/slabs.h"
#include "encoder/relative.h"

namespace fastprompt {
namespace FP_ISA {

// One head of one set of tokens.
struct HeadOf {
  const RelativeCall& call;
  const TokenSet& set;
  int64_t head;

  const float* row(const TokenRows& rows, int64_t token) const {
    return rows.data + set.image * rows.image_step + token * rows.token_step + head * rows.head_step;
  }
  int64_t out(int64_t token) const {  // where the row of a token stands in (images, tokens, heads, width)
    const RelativeAttention& a = call.args;
    return ((set.image * a.out_tokens() + token) * a.heads + head) * a.width;
  }
  bool padded() const { return set.height < call.h.size || set.columns < call.w.size; }
  int64_t keys() const { return set.count + padded(); }  // all positions outside the grid are one more key
  int64_t blocks() const { return (keys() + set.block_keys - 1) / set.block_keys; }
  int64_t keys_of(int64_t block) const {
    const int64_t left = keys() - block * set.block_keys;
    return left < set.block_keys ? left : set.block_keys;
  }

  // body(run, from, to): the tokens [from, to) of the set that lie in [first, last), run by run.
  template <class Body>
  void each_run(int64_t first, int64_t last, const Body& body) const {
    if (first >= set.count) return;
    if (last > set.count) last = set.count;
    for (const Run* run = set.runs + set.block[first / set.block_keys]; run->first < last; ++run) {
      const int64_t from = run->first < first ? first : run->first, end = run->first + run->count;
      if (from < end) body(*run, from, end < last ? end : last);
      if (end >= last) return;
    }
  }

  // Contiguous arrays of the shape of `out`, as TokenRows.
  TokenRows like_out(const float* data) const {
    const RelativeAttention& a = call.args;
    return {data, a.tokens * a.heads * a.width, a.heads * a.width, a.width};
  }

  // The rows of the tokens [first, last), one every `out_row` floats.
  void gather(const TokenRows& rows, int64_t first, int64_t last, float* out, int64_t out_row) const {
    const int64_t width = call.args.width;
    each_run(first, last, [&](const Run& run, int64_t from, int64_t to) {
      const float* at = row(rows, run.token + from - run.first);
      for (int64_t n = from; n < to; ++n, at += rows.token_step) copy_floats(at, out + (n - first) * out_row, width);
    });
  }
};

// The products of a block of queries with the relative tables, in units of log2; h(i)[y] + w(i)[x] is query i's bias.
class Bias {
 public:
  static int64_t floats(const RelativeCall& call) {
    return call.relative() ? kQueries * (call.h.step + call.w.step + 32) : 0;
  }

  void place(const RelativeCall& call, float* memory) {
    h_ = call.h, w_ = call.w;
    rows_h_ = memory, rows_w_ = memory + kQueries * (h_.step + 16);
  }

  // For the queries [first, last), whose rows are in q.
  void load(const HeadOf& head, int64_t first, int64_t last, const Left& q) {
    const int64_t width = head.call.args.width;
    multiply(h_, q, last - first, width, rows_h_);
    multiply(w_, q, last - first, width, rows_w_);
    head.each_run(first, last, [&](const Run& run, int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n) {
        y_[n - first] = run.y;
        x_[n - first] = static_cast<int32_t>(run.x + n - run.first);
      }
    });
  }

  // NOTE: a load of a vector may reach 15 floats behind the last column: rows have that much room.
  const float* h(int64_t i) const { return rows_h_ + at_h(i); }
  const float* w(int64_t i) const { return rows_w_ + at_w(i); }

  // logits (rows x block_keys, a row every `row`) of a block = bias - peak, kLowest from the last key to `end`.
  void fill(const HeadOf& head, int64_t block, int64_t rows, const float* peak, const float* padding, float* logits,
            int64_t row, int64_t end) const {
    const int64_t keys = head.keys_of(block), size = head.set.block_keys;
    for (int64_t i = 0; i < rows; ++i, logits += row) {
      const float *high = h(i), *wide = w(i);
      head.each_run(block * size, (block + 1) * size, [&](const Run& run, int64_t from, int64_t) {
        // Whole vectors: what is too much is overwritten by the next run, or the next row.
        const vf level = broadcast(high[run.y] - peak[i]);
        float* to = logits + from - block * size;
        for (int64_t k = 0; k < run.count; k += N) storeu(to + k, level + loadu(wide + run.x + k));
      });
      for (int64_t k = keys; k < end; ++k) logits[k] = kLowest;
      if (head.padded() && head.keys() <= (block + 1) * size) logits[keys - 1] = padding[i] - peak[i];
    }
  }

  // Where the gradients of h(i) and w(i) stand in rows of gradients of all products.
  int64_t row_h() const { return h_.step + 16; }
  int64_t row_w() const { return w_.step + 16; }
  int64_t at_h(int64_t i) const { return i * row_h() + h_.size - 1 - y_[i]; }
  int64_t at_w(int64_t i) const { return i * row_w() + w_.size - 1 - x_[i]; }

 private:
  void multiply(const RelativeTable& table, const Left& q, int64_t rows, int64_t width, float* out) const {
    gemm<false>(q, table.data, table.step, out, table.step + 16, rows, table.step / N, width);
  }

  RelativeTable h_, w_;
  float *rows_h_, *rows_w_;
  int32_t y_[kQueries], x_[kQueries];
};

}  // namespace FP_ISA
}  // namespace fastprompt
