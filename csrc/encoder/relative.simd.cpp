#include "common/attention_products.h"
#include "common/interrupt.h"
#include "common/online_softmax.h"
#include "common/scratch.h"
#include "encoder/relative_tile.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

// Keys and values are packed once for all queries, then block after block of queries walks over all blocks of keys. The
// logits of a pair of blocks stay in the cache: bias, then products, then weights, then sums of values.
template <class Products>
class Attention {
 public:
  Attention(const RelativeCall& call, const TokenSet& set, const TokenSet& queries, int64_t head)
      : a_(call.args),
        head_{call, set, head},
        queries_{call, queries, head},
        width_(a_.width),
        keys_(set.block_keys),
        blocks_(head_.blocks()),
        products_({width_, width_, keys_, blocks_, call.engine, a_.precision == Precision::high}),
        step_(products_.step()),
        out_row_(products_.out_row()),
        memory_(products_.packed_floats() + products_.own_floats() + OnlineSoftmax::floats(out_row_) +
                kQueries * (products_.key_row() + step_) + step_ * out_row_ + 64 + Bias::floats(call)) {
    float *own = memory_.data() + products_.packed_floats(), *memory = own + products_.own_floats();
    products_.place(memory_.data(), own);
    softmax_.place(memory, width_, out_row_);
    q_ = memory + OnlineSoftmax::floats(out_row_);
    rows_ = q_ + kQueries * products_.key_row();
    logits_ = rows_ + step_ * out_row_;
    if (call.relative()) bias_.place(call, logits_ + kQueries * step_ + 64);
  }

  void pack() {
    for (int64_t b = 0; b < blocks_; ++b) {
      checkpoint();
      products_.pack_keys(b, rows_of(a_.key, a_.pad_key, products_.key_row(), b));
      products_.pack_values(b, rows_of(a_.value, a_.pad_value, out_row_, b));
    }
  }

  void queries(int64_t first, int64_t last) {
    const int64_t rows = last - first, row = products_.key_row();
    const int64_t whole = (rows + Products::kQueryUnit - 1) / Products::kQueryUnit * Products::kQueryUnit;
    for (int64_t i = 0; i < whole * row; i += N) storeu(q_ + i, broadcast(0.f));
    a_.pool > 1 ? gather_pooled(first, last, row) : head_.gather(a_.query, first, last, q_, row);
    const bool relative = head_.call.relative();
    if (relative) bias_.load(head_, first, last, {q_, row, 1});
    if (head_.padded()) weigh_padding(rows, relative);
    for (int64_t i = 0; i < rows * row; i += N) storeu(q_ + i, loadu(q_ + i) * broadcast(a_.scale * kLog2e));
    products_.load(q_, whole);
    softmax_.begin(rows);
    for (int64_t b = 0; b < blocks_; ++b) {
      checkpoint();
      const int64_t keys = head_.keys_of(b), padded = products_.padded(keys);
      if (relative) bias_.fill(head_, b, rows, softmax_.peaks(), padding_, logits_, step_, padded);
      products_.add_logits(b, whole, keys, logits_, relative);
      if (!relative) mask(b, rows, keys, padded);
      for (int64_t i = 0; i < rows; ++i)
        softmax_.weigh(i, b == 0, relative ? softmax_.peaks()[i] : 0.f, logits_ + i * step_, padded / N);
      products_.add_values(b, whole, keys, logits_, softmax_.sums());
    }
    store(first, last);
  }

 private:
  // The tokens of a block, and the padding behind the last; zeros behind them and behind the width.
  KeyBlock rows_of(const TokenRows& from, const float* padding, int64_t row, int64_t b) {
    const int64_t keys = head_.keys_of(b);
    for (int64_t i = 0; i < step_ * row; i += N) storeu(rows_ + i, broadcast(0.f));
    head_.gather(from, b * keys_, (b + 1) * keys_, rows_, row);
    if (head_.padded() && b == blocks_ - 1)
      copy_floats(padding + head_.head * width_, rows_ + (keys - 1) * row, width_);
    return {rows_, row, keys};
  }

  // A query is the largest of those in its pool x pool places of the grid, number by number.
  void gather_pooled(int64_t first, int64_t last, int64_t row) {
    const int64_t pool = a_.pool, columns = a_.columns / pool;
    queries_.each_run(first, last, [&](const Run& run, int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n) {
        const int64_t token = run.token + n - run.first;
        const int64_t corner = token / columns * pool * a_.columns + token % columns * pool;
        float* q = q_ + (n - first) * row;
        for (int64_t k = 0; k < pool * pool; ++k) {
          const float* from_row = head_.row(a_.query, corner + k / pool * a_.columns + k % pool);
          k == 0 ? copy_floats(from_row, q, width_) : raise_floats(from_row, q, width_);
        }
      }
    });
  }

  static void raise_floats(const float* from, float* to, int64_t count) {
    int64_t i = 0;
    for (; i + N <= count; i += N) storeu(to + i, max(loadu(from + i), loadu(to + i)));
    for (; i < count; ++i) to[i] = from[i] > to[i] ? from[i] : to[i];
  }

  // Without a bias: logits behind the last key weigh nothing, and that of the padding as much as all its positions.
  void mask(int64_t b, int64_t rows, int64_t keys, int64_t padded) {
    const bool last = head_.padded() && b == blocks_ - 1;
    for (int64_t i = 0; i < rows; ++i) {
      float* logits = logits_ + i * step_;
      if (last) logits[keys - 1] += padding_[i];
      for (int64_t k = keys; k < padded; ++k) logits[k] = kLowest;
    }
  }

  void store(int64_t first, int64_t last) {
    queries_.each_run(first, last, [&](const Run& run, int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n) {
        const int64_t i = n - first, token = run.token + n - run.first;
        const float log_weight = softmax_.finish(i, a_.out + head_.out(token));
        if (a_.log_weight)
          a_.log_weight[(head_.set.image * a_.heads + head_.head) * a_.out_tokens() + token] = log_weight;
      }
    });
  }

  // All positions outside the grid have the same key: together they weigh as much as one whose bias is the log of the
  // sum of e^bias over them, and that sum is a product for each of two rectangles.
  void weigh_padding(int64_t rows, bool relative) {
    const int64_t height = head_.call.h.size, columns = head_.call.w.size;
    if (!relative) {
      const float outside = __builtin_log2f(static_cast<float>(height * columns - head_.set.count));
      for (int64_t i = 0; i < rows; ++i) padding_[i] = outside;
      return;
    }
    for (int64_t i = 0; i < rows; ++i) {
      const float *h = bias_.h(i), *w = bias_.w(i);
      const float below = log2_sum(h, head_.set.height, height) + log2_sum(w, 0, columns);
      const float beside = log2_sum(h, 0, head_.set.height) + log2_sum(w, head_.set.columns, columns);
      const float high = below > beside ? below : beside, low = below > beside ? beside : below;
      padding_[i] = high + __builtin_log2f(1 + __builtin_exp2f(low - high));
    }
  }

  // log2 of the sum of 2^x[n] over [first, last); kLowest / 2 for nothing.
  static float log2_sum(const float* x, int64_t first, int64_t last) {
    if (first >= last) return kLowest / 2;
    float top = x[first];
    for (int64_t n = first + 1; n < last; ++n) top = x[n] > top ? x[n] : top;
    vf total = broadcast(0.f);
    float rest[N];
    for (int64_t n = first; n < last; n += N) {
      for (int k = 0; k < N; ++k) rest[k] = n + k < last ? x[n + k] - top : kLowest;
      total = total + exp2(loadu(rest));
    }
    return top + __builtin_log2f(sum(total));
  }

  const RelativeAttention& a_;
  const HeadOf head_, queries_;
  const int64_t width_, keys_, blocks_;  // keys_: tokens of a block
  Products products_;
  const int64_t step_, out_row_;
  Scratch memory_;
  Bias bias_;
  OnlineSoftmax softmax_;
  float *q_, *rows_,
      *logits_;              // queries, scaled (kQueries, key row); a block to be packed (step, row); (kQueries, step)
  float padding_[kQueries];  // in units of log2
};

template <class Products>
void all_queries(const RelativeCall& call, const TokenSet& set, const TokenSet& queries, int64_t head, int part,
                 int parts) {
  Attention<Products> attention(call, set, queries, head);
  attention.pack();
  constexpr int64_t U = Products::kQueryUnit;
  const int64_t count = queries.count, blocks = (count + kQueries - 1) / kQueries;
  const int64_t rows = ((count + blocks - 1) / blocks + U - 1) / U * U;  // 196 queries are 3 times 56 and 28
  for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts && b * rows < count; ++b)
    attention.queries(b * rows, (b + 1) * rows < count ? (b + 1) * rows : count);
}

}  // namespace

void relative_queries(const RelativeCall& call, const TokenSet& set, const TokenSet& queries, int64_t head, int part,
                      int parts) {
  call.engine ? all_queries<Bf16Products>(call, set, queries, head, part, parts)
              : all_queries<Float32Products>(call, set, queries, head, part, parts);
}

}  // namespace FP_ISA
}  // namespace fastprompt
