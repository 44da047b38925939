// One prompt's side of the passes over an image in low-rank form.
#pragma once
#include "decoder/low_rank_rows.h"

namespace fastprompt {
namespace FP_ISA {

constexpr int64_t kMaxParts = 1024;  // of an image

// Brings the next tile from memory, a share at each call: an image's prepared numbers, 34 MB for SAM, stay in no cache.
// NOTE: SAM's transformer takes 8.5 ms instead of 9.3; with all of them in the cache it would take 7.0.
class Ahead {
 public:
  Ahead(const void* from, int64_t bytes, int64_t calls)
      : at_(static_cast<const char*>(from)), end_(at_ + bytes), share_((bytes / 64 / calls + 1) * 64) {}
  void fetch() {
    for (const char* stop = end_ - at_ < share_ ? end_ : at_ + share_; at_ < stop; at_ += 64)
      __builtin_prefetch(at_, 0, 2);
  }

 private:
  const char *at_, *end_;
  int64_t share_;
};

// One prompt's side of the passes over the image.
class LowRankPrompt {
 public:
  LowRankPrompt(const LowRank& args, PromptTokens& tokens, int64_t first, int64_t k, int64_t parts)
      : a_(args.two_way),
        l_(args.layout),
        s_{a_.heads, a_.tokens, a_.width, a_.channels},
        tokens_(tokens),
        prompt_(k),
        tiles_((a_.pixels + kTile - 1) / kTile),
        parts_(parts),
        state_(a_.image_out + (first + k) * l_.prompt_rows() * (l_.up + tiles_ * kTile)),
        rows_(args, s_, tokens, k),
        engine_(args.engine),
        split_(args.split),
        columns_(rows_.columns),
        memory_(parts * (rows_.padded_rows() * (size(a_.depth) + 2) + 64)) {
    Pieces pieces{memory_.data()};
    for (int64_t p = 0; p < parts; ++p) {
      float* peak = pieces.take(s_.rows());
      float* weight = pieces.take(s_.rows());
      partials_[p] = {peak, weight, pieces.take(rows_.padded_rows() * size(a_.depth))};
    }
  }

  void answer(Member& m, int64_t n) { rows_.answer(m, n, state_); }
  void ask(Member& m, int64_t n) { rows_.multiply(m, tokens_.query, question(n).key.weight, rows_.asks); }
  const AttentionWeights& question(int64_t n) const { return question_after(a_.layers, a_.final, a_.depth, n); }

  // key = the head's answer: the values of A_n, those of W_n R_n and of the LayerNorm's bias, the value's own bias.
  void merge_head(int64_t h, int64_t n, const AttentionWeights& w) {
    const int64_t size = this->size(n), inner = s_.inner(), first = h * s_.width;
    Scratch memory(s_.tokens * (size + s_.channels) + N);
    float *merged = memory.data(), *said = merged + s_.tokens * size,
          *out = tokens_.key + prompt_ * s_.tokens * inner + first;
    for (int64_t t = 0; t < s_.tokens; ++t)
      merge_row(partials_, static_cast<int>(parts_), h * s_.tokens + t, size, merged + t * size);
    if (n > 0) {
      gemm<false>({merged + s_.width, size, 1}, rows_.rows, s_.channels, said, s_.channels, s_.tokens, s_.channels / N,
                  l_.rank(n));
      for (int64_t k = 0; k < s_.tokens * s_.channels; ++k) said[k] += a_.layers[n - 1].norm4.bias[k % s_.channels];
      linear(w.value.weight + first * s_.channels, said, s_.channels, out, inner, s_.width, s_.tokens, s_.channels);
    }
    for (int64_t t = 0; t < s_.tokens; ++t)
      for (int64_t i = 0; i < s_.width; ++i) {
        const float own = merged[t * size + i] + (w.value.bias ? w.value.bias[first + i] : 0.f);
        out[t * inner + i] = n > 0 ? out[t * inner + i] + own : own;
      }
  }

  struct Room {
    float *question, *logits, *weighted, *products, *turned;
    uint16_t *left, *right;  // in bfloat16, high parts and low ones
  };

  int64_t room_floats() const {
    return (s_.inner() + 3 * rows_.padded_rows() + columns_ + turned_row() + packed_depth()) * kTile;
  }

  // Columns of W that are gathered in pass n, and all numbers that are: with those of the values.
  int64_t gathered(int64_t n) const { return n == 0 ? 0 : round_up(l_.rank(n), engine_ ? kBf16Columns : 16); }
  int64_t size(int64_t n) const { return s_.width + gathered(n); }
  // NOTE: rows of a power of two would share few sets of the L1 cache; 5 % of the transformer's time.
  int64_t turned_row() const { return gathered(a_.depth) + 16; }
  int64_t packed_depth() const { return columns_ > kTile ? round_up(columns_, kBf16Depth) : kTile; }

  // Zeros behind the last row and column of what is packed in whole blocks; they stay so in pass n.
  void clear(float* memory, int64_t n) const {
    const Room r = room(memory);
    for (int64_t k = s_.rows() * kTile; k < rows_.padded_rows() * kTile; ++k) r.logits[k] = 0;
    for (int64_t p = 0; p < kTile; ++p)
      for (int64_t c = round_up(l_.rank(n), 16); c < gathered(n); ++c) r.turned[p * turned_row() + c] = 0;
  }

  Room room(float* memory) const {
    Pieces pieces{memory};
    const auto rows = [&](int64_t count) { return pieces.take(count * kTile); };
    const int64_t wide = rows_.padded_rows();
    float *question = rows(s_.inner()), *logits = rows(wide), *weighted = rows(wide), *products = rows(columns_);
    float *turned = rows(turned_row()), *left = rows(wide), *right = rows(packed_depth());
    return {question,
            logits,
            weighted,
            products,
            turned,
            reinterpret_cast<uint16_t*>(left),
            reinterpret_cast<uint16_t*>(right)};
  }

  void pass_tile(int64_t n, int64_t k, const float* prepared, bool first, float* memory, int64_t part, Ahead& ahead) {
    const LowRankTile<const float> t(l_, prepared, n);
    float* d = state_ + l_.prompt_rows() * (l_.up + k * kTile);
    float* weights = d + kTile;
    const int64_t count = a_.pixels - k * kTile < kTile ? a_.pixels - k * kTile : kTile;
    if (n > 0) answer_tile(n, t, d, weights, room(memory), ahead);
    ask_tile(n, t, d, weights, count, first, room(memory), partials_[part], ahead);
  }

  // How often pass_tile calls ahead.fetch().
  int64_t fetches(int64_t n) const {
    return n == 0 ? s_.heads : l_.rank(n) / kBlock + 1 + (engine_ ? 1 : 2) * s_.heads;
  }

 private:
  // rows = d content + position
  void assemble(const float* d, const float* content, const float* position, float* rows) const {
    for (int64_t p = 0; p < kTile; p += N)
      for (int64_t i = 0; i < s_.inner(); ++i)
        store(rows + i * kTile + p, fma(load(d + p), load(content + i * kTile + p), load(position + i * kTile + p)));
  }

  // The image attends to the prompt: new weights, and the LayerNorm of x + what the prompt says.
  void answer_tile(int64_t n, const LowRankTile<const float>& t, float* d, float* weights, const Room& r,
                   Ahead& ahead) {
    const int64_t old = l_.rank(n - 1);
    float* logits = weights + old * kTile;
    if (n == 1) {
      for (int64_t p = 0; p < kTile; p += N) store(d + p, broadcast(1.f));
      for (int64_t k = 0; k < columns_ * kTile; k += N) store(weights + k, broadcast(0.f));
      dot(s_, tokens_.side(prompt_, tokens_.image_key), t.query, logits);
    } else {
      for (int64_t p = 0; p < kTile; p += N) store(weights + (n - 2) * kTile + p, broadcast(1.f));  // the constant
      assemble(d, t.query, t.query_position, r.question);
      dot(s_, tokens_.side(prompt_, tokens_.image_key), r.question, logits);
      // NOTE: the constant of this pass is not part of the token yet; its column is 0 in `asked`, for its row was.
      gemm<true>({rows_.asked, columns_, 1}, weights, kTile, logits, kTile, s_.rows(), V, old);
    }
    softmax_over_prompt(s_, s_.tokens, nullptr, logits);
    normalise_tile(n, t, d, weights, r.products, ahead);
  }

  // |d A + W R|^2 = d^2 |A|^2 + W (2 d R A + G W)
  void normalise_tile(int64_t n, const LowRankTile<const float>& t, float* d, float* weights, float* products,
                      Ahead& ahead) {
    const int64_t rank = l_.rank(n);
    for (int64_t s = 1; s <= n; ++s)
      dot(s_, tokens_.side(0, rows_.values(s)), t.said + (s - 1) * s_.inner() * kTile,
          products + l_.rank(s - 1) * kTile);
    for (int64_t k = 0; k < a_.depth - 1; ++k)
      for (int64_t p = 0; p < kTile; p += N)
        store(products + k * kTile + p, k < n - 1 ? load(t.constants + k * kTile + p) : broadcast(0.f));
    for (int64_t p = 0; p < kTile; p += N) {
      const vf twice = load(d + p) + load(d + p);
      for (int64_t j = 0; j < rank; ++j) store(products + j * kTile + p, load(products + j * kTile + p) * twice);
    }
    for (int64_t j = 0; j < rank; j += kBlock) {
      ahead.fetch();
      gemm<true>({rows_.gram + j * columns_ + j, columns_, 1}, weights + j * kTile, kTile, products + j * kTile, kTile,
                 rank - j < kBlock ? rank - j : kBlock, V, rank - j);
    }
    const vf share = broadcast(1.f / s_.channels), eps = broadcast(a_.layers[n - 1].norm4.eps);
    for (int64_t p = 0; p < kTile; p += N) {
      vf total = load(d + p) * load(d + p) * load(t.square + p);
      for (int64_t j = 0; j < rank; ++j)
        total = fma(load(weights + j * kTile + p), load(products + j * kTile + p), total);
      const vf scale = broadcast(1.f) / sqrt(fma(max(total, broadcast(0.f)), share, eps));
      store(d + p, load(d + p) * scale);
      for (int64_t j = 0; j < rank; ++j) store(weights + j * kTile + p, load(weights + j * kTile + p) * scale);
    }
  }

  // The prompt attends to the image.
  void ask_tile(int64_t n, const LowRankTile<const float>& t, const float* d, const float* weights, int64_t count,
                bool first, const Room& r, Partial& sums, Ahead& ahead) {
    const int64_t size = this->size(n);
    if (n > 0) assemble(d, t.key, t.key_position, r.question);
    dot(s_, tokens_.side(prompt_, tokens_.query), n == 0 ? t.key : r.question, r.logits);
    if (n > 0) add_products(weights, l_.rank(n), r, ahead);
    weigh(s_, count, nullptr, 0, size, first, r.logits, sums);
    const float* weighted = r.logits;
    if (n > 0) {
      for (int64_t j = 0; j < s_.rows(); ++j)
        for (int64_t p = 0; p < kTile; p += N)
          store(r.weighted + j * kTile + p, load(r.logits + j * kTile + p) * load(d + p));
      weighted = r.weighted;
    }
    for (int64_t h = 0; h < s_.heads; ++h) {
      ahead.fetch();
      gather(weighted + h * s_.tokens * kTile, s_.tokens, t.value + h * s_.width, s_.inner(), s_.width, first,
             sums.value + h * s_.tokens * size, size);
    }
    if (n == 0) return;
    turn_tile(round_up(l_.rank(n), 16), weights, r.turned, turned_row());
    engine_ ? gather_packed(n, first, r, sums)
            : gather(r.logits, s_.rows(), r.turned, turned_row(), gathered(n), first, sums.value + s_.width, size);
  }

  // logits += what the prompt asks of the rows, times their weights.
  void add_products(const float* weights, int64_t rank, const Room& r, Ahead& ahead) {
    if (engine_) {
      const int64_t depth = round_to_depth(rank);
      const Bf16Operand right{r.right, split_ ? r.right + depth * kTile : nullptr};
      engine_->pack_right(weights, kTile, rank, depth, r.right, split_ ? r.right + depth * kTile : nullptr);
      return multiply(*engine_, rows_.packed_asks(), in_rows(round_to_depth(columns_)), right, r.logits, kTile,
                      rows_.padded_rows(), depth, true);
    }
    for (int64_t j = 0; j < s_.rows(); j += s_.tokens) {
      ahead.fetch();
      gemm<true>({rows_.asks + j * columns_, columns_, 1}, weights, kTile, r.logits + j * kTile, kTile, s_.tokens, V,
                 rank);
    }
  }

  void gather_packed(int64_t n, bool first, const Room& r, Partial& sums) {
    const int64_t rows = rows_.padded_rows(), count = rows * kTile;
    const Bf16Operand left{r.left, split_ ? r.left + count : nullptr};
    engine_->pack_in_order(r.logits, count, r.left, split_ ? r.left + count : nullptr);
    uint16_t* low = split_ ? r.right + kTile * kBf16Columns : nullptr;
    for (int64_t c = 0; c < gathered(n); c += kBf16Columns) {
      engine_->pack_right(r.turned + c, turned_row(), kTile, kTile, r.right, low);
      multiply(*engine_, left, in_rows(kTile), {r.right, low}, sums.value + s_.width + c, size(n), rows, kTile, !first);
    }
  }

  const TwoWay& a_;
  const LowRankLayout& l_;
  const Heads s_;
  PromptTokens& tokens_;
  const int64_t prompt_, tiles_, parts_;  // prompt_: of the tokens
  float* state_;                          // see LowRankLayout::prompt_rows
  LowRankRows rows_;
  const Bf16* engine_;
  const bool split_;
  const int64_t columns_;  // of the rows R, padded
  Scratch memory_;
  Partial partials_[kMaxParts];
};

}  // namespace FP_ISA
}  // namespace fastprompt
