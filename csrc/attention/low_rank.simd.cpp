#include "attention/low_rank.h"

#include "attention/low_rank_tile.h"
#include "attention/prompt_tokens.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int64_t kParts = 8;  // of the image, for each thread: 0.2 ms for SAM, see Member::stage
constexpr int64_t kBlock = 8;  // rows of a block of the Gram matrix

// Brings the next tile from memory, a share at each call: an image's prepared numbers, 34 MB for SAM, stay in no cache.
// NOTE: 0.7 of 2.3 ms a pass were spent waiting for them.
class Ahead {
 public:
  Ahead(const float* from, int64_t floats, int64_t calls)
      : at_(from), end_(from + floats), share_(floats / 16 / calls * 16 + 16) {}
  void fetch() {
    for (const float* stop = end_ - at_ < share_ ? end_ : at_ + share_; at_ < stop; at_ += 16)
      __builtin_prefetch(at_, 0, 2);
  }

 private:
  const float *at_, *end_;
  int64_t share_;
};

// All of one prompt.
class LowRankDecoder {
 public:
  LowRankDecoder(const LowRank& args, int64_t prompt, int threads)
      : a_(args.two_way),
        l_(args.layout),
        up_weight_(args.up_weight),
        s_{a_.heads, a_.tokens, a_.width, a_.channels},
        tiles_((a_.pixels + kTile - 1) / kTile),
        parts_(threads == 1                ? 1
               : tiles_ < kParts * threads ? tiles_
                                           : kParts * threads),
        columns_(round_up(l_.rank(a_.depth), 16)),
        size_(s_.width + columns_),
        prepared_(a_.prepared + prompt / (a_.prompts / a_.images) * tiles_ * l_.prepared_rows() * kTile),
        state_(a_.image_out + prompt * l_.prompt_rows() * (l_.up + tiles_ * kTile)),
        tokens_(a_, prompt),
        values_(a_.depth * s_.inner() * s_.tokens),
        memory_(floats()) {
    Pieces pieces{memory_.data()};
    rows_ = pieces.take(columns_ * s_.channels);
    turned_ = pieces.take(columns_ * s_.channels);
    gram_ = pieces.take(columns_ * columns_);
    absorbed_ = pieces.take(s_.rows() * s_.channels);
    asked_ = pieces.take(s_.rows() * columns_);
    asks_ = pieces.take(s_.rows() * columns_);
    for (int64_t k = 0; k < parts_; ++k) {
      float* peak = pieces.take(s_.rows());
      float* weight = pieces.take(s_.rows());
      partials_[k] = {peak, weight, pieces.take(s_.rows() * size_)};
    }
  }

  static void program(Member& m, void* self) { static_cast<LowRankDecoder*>(self)->run(m); }

 private:
  static constexpr int64_t kMaxParts = 64 * kParts;

  int64_t floats() const {
    return columns_ * (2 * s_.channels + columns_) + s_.rows() * (s_.channels + 2 * columns_) +
           parts_ * (s_.rows() * (size_ + 2) + 64) + 256;
  }

  // Every thread of the team runs this; the stages keep them together.
  void run(Member& m) {
    tokens_.read(m);
    each(m, 1, [&](int64_t) {
      for (int64_t k = 0; k < columns_ * s_.channels; ++k) rows_[k] = 0;
    });
    for (int64_t n = 0; n <= a_.depth; ++n) {
      if (n > 0) {
        take_answer(m, n - 1, a_.layers[n - 1].to_image, a_.layers[n - 1].norm2);
        tokens_.digest(m, a_.layers[n - 1]);
        answer_image(m, n);
      }
      if (n < a_.depth) tokens_.attend_to_itself(m, a_.layers[n], n == 0);
      tokens_.ask(m, question(n));
      if (n > 0) products_with_rows(m, tokens_.query, question(n).key.weight, asks_);
      each(m, parts_, [&](int64_t part) { pass(n, part); }, true);
    }
    take_answer(m, a_.depth, a_.final, a_.final_norm);
    tokens_.write(m);
  }

  const AttentionWeights& question(int64_t n) const { return question_after(a_.layers, a_.final, a_.depth, n); }
  float* values(int64_t n) { return values_.data() + (n - 1) * s_.inner() * s_.tokens; }

  // ---------------------------------------------------------------- on the rows R

  // products (H T x columns) = x, absorbed in `weight`, times the rows.
  void products_with_rows(Member& m, const float* x, const float* weight, float* products) {
    each(m, a_.heads, [&](int64_t h) {
      tokens_.absorb(h, x, weight, absorbed_);
      const int64_t first = h * s_.tokens;
      gemm<false>({absorbed_ + first * s_.channels, s_.channels, 1}, turned_, columns_, products + first * columns_,
                  columns_, s_.tokens, columns_ / N, s_.channels);
    });
  }

  // What the prompt says to the image in pass n, as rows; their Gram matrix, for the LayerNorm; and the rows after it.
  void answer_image(Member& m, int64_t n) {
    const TwoWayLayer& l = a_.layers[n - 1];
    if (n > 1) products_with_rows(m, tokens_.image_key, l.to_prompt.query.weight, asked_);
    const int64_t old = l_.rank(n - 1), now = l_.rank(n);
    each(m, a_.heads, [&](int64_t h) {
      const int64_t first = h * s_.tokens;
      for (int64_t t = 0; t < s_.tokens; ++t)
        for (int64_t i = t * s_.inner() + h * s_.width; i < t * s_.inner() + (h + 1) * s_.width; ++i)
          values(n)[i] = tokens_.image_value[i];
      tokens_.absorb_out(h, values(n), l.to_prompt.out.weight, rows_ + old * s_.channels);
      for (int64_t t = 0; t < s_.tokens; ++t) centre_row(rows_ + (old + first + t) * s_.channels, s_.channels);
    });
    each(m, old, [&](int64_t j) {
      float* row = rows_ + j * s_.channels;
      if (j == n - 2)
        new_constant(a_.layers, n, s_.channels, row);
      else
        centre_row(row, s_.channels);
    });
    each(m, columns_ / N, [&](int64_t k) {
      for (int64_t c = 0; c < s_.channels; c += N)
        transpose_tile(rows_ + k * N * s_.channels + c, s_.channels, turned_ + c * columns_ + k * N, columns_);
    });
    each(m, (now + kBlock - 1) / kBlock, [&](int64_t k) { gram_block(k * kBlock, now); });
    each(m, now, [&](int64_t j) {
      for (int64_t c = 0; c < s_.channels; ++c) rows_[j * s_.channels + c] *= l.norm4.weight[c];
    });
    each(m, s_.channels, [&](int64_t c) {
      for (int64_t j = 0; j < columns_; ++j) turned_[c * columns_ + j] *= l.norm4.weight[c];
    });
    if (n == a_.depth) raise_rows(m);
  }

  // Rows [first, first + 8) of the Gram matrix from their own block on, what follows counted twice: W G W' in half.
  void gram_block(int64_t first, int64_t rank) {
    const int64_t rows = rank - first < kBlock ? rank - first : kBlock, from = first / N * N;
    gemm<false>({rows_ + first * s_.channels, s_.channels, 1}, turned_ + from, columns_,
                gram_ + first * columns_ + from, columns_, rows, (columns_ - from) / N, s_.channels);
    for (int64_t j = first; j < first + rows; ++j)
      for (int64_t i = first + kBlock; i < rank; ++i) gram_[j * columns_ + i] *= 2;
  }

  // For the mask head: the bias of the last LayerNorm and the rows, times W_up.
  void raise_rows(Member& m) {
    each(m, columns_ / kBlock + 1, [&](int64_t k) {
      const float* bias = a_.layers[a_.depth - 1].norm4.bias;
      const Left left{k == 0 ? bias : rows_ + (k - 1) * kBlock * s_.channels, s_.channels, 1};
      float* to = state_ + (k == 0 ? 0 : 1 + (k - 1) * kBlock) * l_.up;
      gemm<false>(left, up_weight_, l_.up, to, l_.up, k == 0 ? 1 : kBlock, l_.up / N, s_.channels);
    });
  }

  // ---------------------------------------------------------------- from the image

  void take_answer(Member& m, int64_t n, const AttentionWeights& w, const LayerNorm& norm) {
    each(m, a_.heads, [&](int64_t h) { merge_head(h, n, w); });
    tokens_.take_answer(m, w, norm);
  }

  // key = the head's answer: the values of A_n, those of W_n R_n and of the LayerNorm's bias, the value's own bias.
  void merge_head(int64_t h, int64_t n, const AttentionWeights& w) {
    const int64_t size = n == 0 ? s_.width : size_, inner = s_.inner(), first = h * s_.width;
    Scratch memory(s_.tokens * (size_ + s_.channels) + N);
    float *merged = memory.data(), *said = merged + s_.tokens * size_, *out = tokens_.key + first;
    for (int64_t t = 0; t < s_.tokens; ++t)
      merge_row(partials_, static_cast<int>(parts_), h * s_.tokens + t, size, merged + t * size);
    if (n > 0) {
      gemm<false>({merged + s_.width, size, 1}, rows_, s_.channels, said, s_.channels, s_.tokens, s_.channels / N,
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

  // ---------------------------------------------------------------- on image tokens

  struct Room {
    float *question, *logits, *weighted, *products, *turned;
  };

  void pass(int64_t n, int64_t part) {
    const int64_t wide = s_.rows() * kTile, inner = s_.inner() * kTile, square = columns_ * kTile;
    Scratch memory(inner + 2 * wide + 2 * square);
    float* at = memory.data();
    const Room r{at, at + inner, at + inner + wide, at + inner + 2 * wide, at + inner + 2 * wide + square};
    const int64_t first = tiles_ * part / parts_, last = tiles_ * (part + 1) / parts_;
    for (int64_t k = first; k < last; ++k) pass_tile(n, k, k == first, r, partials_[part]);
  }

  void pass_tile(int64_t n, int64_t k, bool first, const Room& r, Partial& sums) {
    const float* tile = prepared_ + k * l_.prepared_rows() * kTile;
    const LowRankTile<const float> t(l_, tile, n);
    Ahead ahead(tile + (l_.prepared_rows() + l_.start(n)) * kTile, k + 1 < tiles_ ? l_.rows(n) * kTile : 0,
                n == 0 ? s_.heads : l_.rank(n) / kBlock + 2 * s_.heads);
    float* d = state_ + l_.prompt_rows() * (l_.up + k * kTile);
    float* weights = d + kTile;
    const int64_t count = a_.pixels - k * kTile < kTile ? a_.pixels - k * kTile : kTile;
    if (n > 0) answer_tile(n, t, d, weights, r, ahead);
    ask_tile(n, t, d, weights, count, first, r, sums, ahead);
  }

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
      dot(s_, tokens_.side(tokens_.image_key), t.query, logits);
    } else {
      for (int64_t p = 0; p < kTile; p += N) store(weights + (n - 2) * kTile + p, broadcast(1.f));  // the constant
      assemble(d, t.query, t.query_position, r.question);
      dot(s_, tokens_.side(tokens_.image_key), r.question, logits);
      // NOTE: the constant of this pass is not part of the token yet; its column is 0 in asked_, for its row was.
      gemm<true>({asked_, columns_, 1}, weights, kTile, logits, kTile, s_.rows(), V, old);
    }
    softmax_over_prompt(s_, s_.tokens, nullptr, logits);
    normalise_tile(n, t, d, weights, r.products, ahead);
  }

  // |d A + W R|^2 = d^2 |A|^2 + W (2 d R A + G W)
  void normalise_tile(int64_t n, const LowRankTile<const float>& t, float* d, float* weights, float* products,
                      Ahead& ahead) {
    const int64_t rank = l_.rank(n);
    for (int64_t s = 1; s <= n; ++s)
      dot(s_, tokens_.side(values(s)), t.said + (s - 1) * s_.inner() * kTile, products + l_.rank(s - 1) * kTile);
    for (int64_t k = 0; k < a_.depth - 1; ++k)
      for (int64_t p = 0; p < kTile; p += N)
        store(products + k * kTile + p, k < n - 1 ? load(t.constants + k * kTile + p) : broadcast(0.f));
    for (int64_t p = 0; p < kTile; p += N) {
      const vf twice = load(d + p) + load(d + p);
      for (int64_t j = 0; j < rank; ++j) store(products + j * kTile + p, load(products + j * kTile + p) * twice);
    }
    for (int64_t j = 0; j < rank; j += kBlock) {
      ahead.fetch();
      gemm<true>({gram_ + j * columns_ + j, columns_, 1}, weights + j * kTile, kTile, products + j * kTile, kTile,
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
    const int64_t size = n == 0 ? s_.width : size_;
    if (n > 0) assemble(d, t.key, t.key_position, r.question);
    dot(s_, tokens_.side(tokens_.query), n == 0 ? t.key : r.question, r.logits);
    for (int64_t j = 0; n > 0 && j < s_.rows(); j += s_.tokens) {
      ahead.fetch();
      gemm<true>({asks_ + j * columns_, columns_, 1}, weights, kTile, r.logits + j * kTile, kTile, s_.tokens, V,
                 l_.rank(n));
    }
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
    turn_tile(columns_, weights, r.turned);
    gather(r.logits, s_.rows(), r.turned, columns_, columns_, first, sums.value + s_.width, size);
  }

  const TwoWay& a_;
  const LowRankLayout& l_;
  const float* up_weight_;
  const Heads s_;
  const int64_t tiles_, parts_;
  const int64_t columns_, size_;  // of the rows R, padded; of a gathered value
  const float* prepared_;         // of this prompt's image
  float* state_;                  // of this prompt: see LowRankLayout::prompt_rows
  PromptTokens tokens_;
  Scratch values_, memory_;
  Partial partials_[kMaxParts];
  float *rows_, *turned_, *gram_;     // R (columns x C), and turned; R R'
  float *absorbed_, *asked_, *asks_;  // H T x C; what image and prompt ask of R, H T x columns
};

}  // namespace

void low_rank_prompt(const LowRank& a, int64_t prompt, int threads) {
  threads = threads < 64 ? threads : 64;
  LowRankDecoder decoder(a, prompt, threads);  // the parts, and so the bits, do not depend on who is busy
  run_team(team_size(threads), LowRankDecoder::program, &decoder);
}

}  // namespace FP_ISA
}  // namespace fastprompt
