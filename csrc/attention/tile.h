// Attention on a tile of image tokens. In a tile the tokens are contiguous, a row is a channel or a (head, prompt
// token): both softmaxes, LayerNorm and the residual work on whole vectors, and an image in NCHW is never transposed.
#pragma once
#include "attention/prompt.h"
#include "common/gemm.h"
#include "common/layer_norm.h"

namespace fastprompt {
namespace FP_ISA {

constexpr int V = 4;               // vectors of a tile
constexpr int64_t kTile = V * N;   // image tokens of a tile
constexpr float kLowest = -3e38f;  // below every logit
constexpr float kSlack = 8;        // a peak may be passed by this much before the sums are rescaled

struct Heads {
  int64_t heads, tokens, width, channels;
  int64_t rows() const { return heads * tokens; }
  int64_t inner() const { return heads * width; }
};

// out (rows x tile) = weight (rows x depth) tile
static inline void project(const float* weight, int64_t rows, int64_t depth, const float* tile, float* out) {
  gemm<false>({weight, depth, 1}, tile, kTile, out, kTile, rows, V, depth);
}

// The prompt side of an attention: number i of token t in head h is data[h * head + t * token + i * step].
struct Side {
  Form form;
  const float* data;
  ptrdiff_t head, token, step;
};

// Rows one after the other, of `channels` numbers if absorbed, else of `width`.
static inline Side side(const Heads& s, Form form, const float* data) {
  const int64_t size = form == Form::absorbed ? s.channels : s.width;
  return {form, data, s.tokens * size, size, 1};
}

// logits[h T + t] = row . token: of the tokens themselves (absorbed) or of their projection for the head.
static inline void dot(const Heads& s, const Side& row, const float* tile, float* logits) {
  if (row.form == Form::absorbed)
    return gemm<false>({row.data, row.token, row.step}, tile, kTile, logits, kTile, s.rows(), V, s.channels);
  for (int64_t h = 0; h < s.heads; ++h)
    gemm<false>({row.data + h * row.head, row.token, row.step}, tile + h * s.width * kTile, kTile,
                logits + h * s.tokens * kTile, kTile, s.tokens, V, s.width);
}

// ---------------------------------------------------------------- every image token attends to the prompt

// Over the first `tokens` rows of each head; the others become 0. `bias` (H T) or null.
static inline void softmax_over_prompt(const Heads& s, int64_t tokens, const float* bias, float* logits) {
  for (int64_t h = 0; h < s.heads; ++h, logits += s.tokens * kTile)
    for (int64_t n = 0; n < kTile; n += N) {
      vf peak = broadcast(kLowest), total = broadcast(0.f);
      for (int64_t t = 0; t < tokens; ++t) {
        const vf logit = load(logits + t * kTile + n) + broadcast(bias ? bias[h * s.tokens + t] : 0.f);
        store(logits + t * kTile + n, logit);
        peak = max(logit, peak);
      }
      for (int64_t t = 0; t < tokens; ++t) {
        const vf weight = exp(load(logits + t * kTile + n) - peak);
        store(logits + t * kTile + n, weight);
        total = total + weight;
      }
      const vf scale = broadcast(1.f) / total;
      for (int64_t t = 0; t < tokens; ++t) store(logits + t * kTile + n, load(logits + t * kTile + n) * scale);
      for (int64_t t = tokens; t < s.tokens; ++t) store(logits + t * kTile + n, broadcast(0.f));
    }
}

// x (channels x tile) += what the prompt tokens give. `room` takes inner() x tile floats if projected.
static inline void add_from_prompt(const Heads& s, const Side& value, const float* out_weight, const float* weights,
                                   float* x, float* room) {
  if (value.form == Form::absorbed)
    return gemm<true>({value.data, value.step, value.token}, weights, kTile, x, kTile, s.channels, V, s.rows());
  for (int64_t h = 0; h < s.heads; ++h)
    gemm<false>({value.data + h * value.head, value.step, value.token}, weights + h * s.tokens * kTile, kTile,
                room + h * s.width * kTile, kTile, s.width, V, s.tokens);
  gemm<true>({out_weight, s.inner(), 1}, room, kTile, x, kTile, s.channels, V, s.inner());
}

// ---------------------------------------------------------------- the prompt attends to every image token

// Logits of the first `count` tokens become weights e^(logit - peak), the others 0. `bias` (tokens x bias_row) or null.
static inline void weigh(const Heads& s, int64_t count, const float* bias, int64_t bias_row, int64_t size, bool first,
                         float* logits, Partial& sums) {
  for (int64_t j = 0; j < s.rows(); ++j) {
    float* row = logits + j * kTile;
    for (int64_t n = 0; bias && n < count; ++n) row[n] += bias[j % s.tokens * bias_row + n];
    for (int64_t n = count; n < kTile; ++n) row[n] = -__builtin_inff();
    vf most = broadcast(kLowest);
    for (int v = 0; v < V; ++v) most = max(load(row + v * N), most);
    const float peak = maximum(most);
    if (first) {
      sums.peak[j] = peak, sums.weight[j] = 0;
    } else if (peak > sums.peak[j] + kSlack) {
      const vf scale = exp(broadcast(sums.peak[j] - peak));
      sums.peak[j] = peak, sums.weight[j] *= scale[0];
      for (int64_t c = 0; c < size; c += N) storeu(sums.value + j * size + c, loadu(sums.value + j * size + c) * scale);
    }
    vf total = broadcast(0.f);
    for (int v = 0; v < V; ++v) {
      const vf weight = exp(load(row + v * N) - broadcast(sums.peak[j]));
      store(row + v * N, weight);
      total = total + weight;
    }
    sums.weight[j] += sum(total);
  }
}

// value (rows x size) += weights (rows x tile) tokens (tile x size)
static inline void gather(const float* weights, int64_t rows, const float* tokens, int64_t token_row, int64_t size,
                          bool first, float* value, int64_t value_row) {
  const Left left{weights, kTile, 1};
  first ? gemm<false>(left, tokens, token_row, value, value_row, rows, size / N, kTile)
        : gemm<true>(left, tokens, token_row, value, value_row, rows, size / N, kTile);
}

// The values of all heads, token by token: projected ones are tile x inner(), else the tokens are turned.
static inline void gather_heads(const Heads& s, Form form, const float* weights, const float* tokens, bool first,
                                Partial& sums) {
  if (form == Form::absorbed)
    return gather(weights, s.rows(), tokens, s.channels, s.channels, first, sums.value, s.channels);
  for (int64_t h = 0; h < s.heads; ++h)
    gather(weights + h * s.tokens * kTile, s.tokens, tokens + h * s.width, s.inner(), s.width, first,
           sums.value + h * s.tokens * s.width, s.width);
}

// turned (tile x channels), a row every `row` floats
static inline void turn_tile(int64_t channels, const float* x, float* turned, int64_t row) {
  for (int64_t n = 0; n < kTile; n += N)
    for (int64_t c = 0; c < channels; c += N) transpose_tile(x + c * kTile + n, kTile, turned + n * row + c, row);
}

// Softmax over all tiles: sum of e^(peak - top) value over that of e^(peak - top) weight. Row j of `out` is 0 where no
// image token may be seen.
static inline void merge_row(const Partial* parts, int count, int64_t j, int64_t size, float* out) {
  float top = kLowest, total = 0;
  for (int k = 0; k < count; ++k) top = parts[k].peak[j] > top ? parts[k].peak[j] : top;
  for (int64_t c = 0; c < size; ++c) out[c] = 0;
  if (top == kLowest) return;
  for (int k = 0; k < count; ++k) {
    const float scale = exp(broadcast(parts[k].peak[j] - top))[0];
    total += parts[k].weight[j] * scale;
    for (int64_t c = 0; c < size; ++c) out[c] += parts[k].value[j * size + c] * scale;
  }
  for (int64_t c = 0; c < size; ++c) out[c] /= total;
}

}  // namespace FP_ISA
}  // namespace fastprompt
