// The prepared numbers of a tile of image tokens, by name.
#pragma once
#include "attention/tile.h"
#include "decoder/low_rank.h"

namespace fastprompt {
namespace FP_ISA {

// Of pass n; rows x tile, but the value, which is tile x inner.
template <class Float>
struct LowRankTile {
  Float *query, *query_position, *said, *square, *constants, *key, *key_position, *value;

  // `rows` are those of the pass, not of the whole tile.
  LowRankTile(const LowRankLayout& l, Float* rows, int64_t n) {
    const int64_t inner = l.inner() * kTile;
    query = rows;
    query_position = query + inner;
    said = query + l.question(n) * kTile;
    square = said + n * inner;
    constants = square + kTile;
    key = n == 0 ? query : said + n * (inner + kTile);
    key_position = key + inner;
    value = n == 0 ? key + inner : key + 2 * inner;
  }
};

// Plain loops, which the compiler turns into vectors of every instruction set.
static inline void expand(const uint16_t* from, float* to, int64_t count) {
  for (int64_t k = 0; k < count; ++k) {
    const uint32_t bits = static_cast<uint32_t>(from[k]) << 16;
    __builtin_memcpy(to + k, &bits, 4);
  }
}

static inline void compress(const float* from, uint16_t* to, int64_t count) {
  for (int64_t k = 0; k < count; ++k) {
    uint32_t bits;
    __builtin_memcpy(&bits, from + k, 4);
    const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    to[k] = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : nearest);  // NaN stays one
  }
}

static inline const AttentionWeights& question_after(const TwoWayLayer* layers, const AttentionWeights& final,
                                                     int64_t depth, int64_t n) {
  return n < depth ? layers[n].to_image : final;
}

// x -= its mean over the channels.
static inline void centre(float* x, int64_t channels) {
  for (int64_t n = 0; n < kTile; n += N) {
    vf total = broadcast(0.f);
    for (int64_t c = 0; c < channels; ++c) total = total + load(x + c * kTile + n);
    const vf mean = total * broadcast(1.f / channels);
    for (int64_t c = 0; c < channels; ++c) store(x + c * kTile + n, load(x + c * kTile + n) - mean);
  }
}

// A row of R from one LayerNorm to the next: times the weight of the first, centred for the second.
static inline void centre_row(float* row, int64_t channels) {
  float total = 0;
  for (int64_t c = 0; c < channels; ++c) total += row[c];
  for (int64_t c = 0; c < channels; ++c) row[c] -= total / channels;
}

static inline void pass_norm(float* row, const float* weight, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) row[c] *= weight[c];
  centre_row(row, channels);
}

// The constant that enters at LayerNorm n > 1: bias of the one before, and of the attention's output.
static inline void new_constant(const TwoWayLayer* layers, int64_t n, int64_t channels, float* row) {
  const float *norm = layers[n - 2].norm4.bias, *out = layers[n - 1].to_prompt.out.bias;
  for (int64_t c = 0; c < channels; ++c) row[c] = norm[c] + (out ? out[c] : 0.f);
  centre_row(row, channels);
}

}  // namespace FP_ISA
}  // namespace fastprompt
