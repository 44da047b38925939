// What one prompt says to the image, pass by pass: the rows R of low_rank.h.
#pragma once
#include "decoder/low_rank_tile.h"
#include "decoder/prompt_tokens.h"

namespace fastprompt {
namespace FP_ISA {

constexpr int64_t kBlock = 8;  // rows of a block of the Gram matrix

class LowRankRows {
 public:
  LowRankRows(const LowRank& args, const Heads& s, const PromptTokens& tokens, int64_t prompt)
      : columns(round_up(args.layout.rank(args.layout.depth), 16)),
        a_(args.two_way),
        l_(args.layout),
        up_weight_(args.up_weight),
        s_(s),
        tokens_(tokens),
        prompt_(prompt),
        engine_(args.engine),
        memory_(columns * (2 * s.channels + columns) + s.rows() * (s.channels + 2 * columns) +
                l_.depth * s.inner() * s.tokens + padded_rows() * round_up(columns, kBf16Depth) + 512) {
    Pieces pieces{memory_.data()};
    rows = pieces.take(columns * s.channels);
    turned_ = pieces.take(columns * s.channels);
    gram = pieces.take(columns * columns);
    absorbed_ = pieces.take(s.rows() * s.channels);
    asked = pieces.take(s.rows() * columns);
    asks = pieces.take(s.rows() * columns);
    values_ = pieces.take(l_.depth * s.inner() * s.tokens);
    for (int64_t k = 0; k < columns * s.channels; ++k) rows[k] = 0;
    if (!engine_) return;
    const int64_t size = padded_rows() * round_to_depth(columns);
    high_ = reinterpret_cast<uint16_t*>(pieces.take(size));
    low_ = args.split ? high_ + size : nullptr;
    for (int64_t k = 0; k < 2 * size; ++k) high_[k] = 0;
  }

  // `asks` in bfloat16, padded_rows() x round_to_depth(columns).
  Bf16Operand packed_asks() const { return {high_, low_}; }
  int64_t padded_rows() const { return round_up(s_.rows(), kBf16Rows); }

  // What the heads say in pass n, tokens x inner.
  float* values(int64_t n) const { return values_ + (n - 1) * s_.inner() * s_.tokens; }

  // products (H T x columns) = x, absorbed in `weight`, times the rows.
  void multiply(Member& m, const float* x, const float* weight, float* products) {
    x = tokens_.of_prompt(prompt_, x);
    each(m, a_.heads, [&](int64_t h) {
      tokens_.absorb(h, x, weight, absorbed_);
      const int64_t first = h * s_.tokens;
      gemm<false>({absorbed_ + first * s_.channels, s_.channels, 1}, turned_, columns, products + first * columns,
                  columns, s_.tokens, columns / N, s_.channels);
      if (!engine_ || products != asks) return;
      const int64_t to = first * round_to_depth(columns);
      pack_left(asks + first * columns, columns, 1, s_.tokens, columns, high_ + to, low_ ? low_ + to : nullptr);
    });
  }

  // What the prompt says to the image in pass n, as rows; their Gram matrix, for the LayerNorm; and the rows after it.
  void answer(Member& m, int64_t n, float* state) {
    const TwoWayLayer& l = a_.layers[n - 1];
    if (n > 1) multiply(m, tokens_.image_key, l.to_prompt.query.weight, asked);
    const int64_t old = l_.rank(n - 1), now = l_.rank(n);
    each(m, a_.heads, [&](int64_t h) {
      const int64_t first = h * s_.tokens;
      for (int64_t t = 0; t < s_.tokens; ++t)
        for (int64_t i = t * s_.inner() + h * s_.width; i < t * s_.inner() + (h + 1) * s_.width; ++i)
          values(n)[i] = tokens_.of_prompt(prompt_, tokens_.image_value)[i];
      tokens_.absorb_out(h, values(n), l.to_prompt.out.weight, rows + old * s_.channels);
      for (int64_t t = 0; t < s_.tokens; ++t) centre_row(rows + (old + first + t) * s_.channels, s_.channels);
    });
    each(m, old, [&](int64_t j) {
      float* row = rows + j * s_.channels;
      if (j == n - 2)
        new_constant(a_.layers, n, s_.channels, row);
      else
        centre_row(row, s_.channels);
    });
    each(m, columns / N, [&](int64_t k) {
      for (int64_t c = 0; c < s_.channels; c += N)
        transpose_tile(rows + k * N * s_.channels + c, s_.channels, turned_ + c * columns + k * N, columns);
    });
    each(m, (now + kBlock - 1) / kBlock, [&](int64_t k) { gram_block(k * kBlock, now); });
    each(m, now, [&](int64_t j) {
      for (int64_t c = 0; c < s_.channels; ++c) rows[j * s_.channels + c] *= l.norm4.weight[c];
    });
    each(m, s_.channels, [&](int64_t c) {
      for (int64_t j = 0; j < columns; ++j) turned_[c * columns + j] *= l.norm4.weight[c];
    });
    if (n == a_.depth) raise(m, state);
  }

  const int64_t columns;
  float *rows, *gram;   // R (columns x C), R R'
  float *asked, *asks;  // what image and prompt ask of the rows, H T x columns

 private:
  // Rows [first, first + 8) of the Gram matrix from their own block on, what follows counted twice: W G W' in half.
  void gram_block(int64_t first, int64_t rank) {
    const int64_t count = rank - first < kBlock ? rank - first : kBlock, from = first / N * N;
    gemm<false>({rows + first * s_.channels, s_.channels, 1}, turned_ + from, columns, gram + first * columns + from,
                columns, count, (columns - from) / N, s_.channels);
    for (int64_t j = first; j < first + count; ++j)
      for (int64_t i = first + kBlock; i < rank; ++i) gram[j * columns + i] *= 2;
  }

  // For the mask head: the bias of the last LayerNorm and the rows, times W_up.
  void raise(Member& m, float* state) {
    each(m, columns / kBlock + 1, [&](int64_t k) {
      const float* bias = a_.layers[a_.depth - 1].norm4.bias;
      const Left left{k == 0 ? bias : rows + (k - 1) * kBlock * s_.channels, s_.channels, 1};
      float* to = state + (k == 0 ? 0 : 1 + (k - 1) * kBlock) * l_.up;
      gemm<false>(left, up_weight_, l_.up, to, l_.up, k == 0 ? 1 : kBlock, l_.up / N, s_.channels);
    });
  }

  const TwoWay& a_;
  const LowRankLayout& l_;
  const float* up_weight_;
  const Heads& s_;
  const PromptTokens& tokens_;
  const int64_t prompt_;  // of the tokens
  const Bf16* engine_;
  Scratch memory_;
  uint16_t *high_ = nullptr, *low_ = nullptr;
  float *turned_, *absorbed_, *values_;
};

}  // namespace FP_ISA
}  // namespace fastprompt
