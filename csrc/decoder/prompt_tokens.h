// The tokens of some prompts between two passes over the image: self attention, MLP, norms and projections. A layer's
// weights are read once for all of them.
#pragma once
#include "attention/tile.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "decoder/two_way.h"

namespace fastprompt {
namespace FP_ISA {

static inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// Of an image's tiles, so many for each thread; one for one thread, which then has nothing to merge.
static inline int64_t parts_of(int64_t tiles, int threads, int64_t each) {
  const int64_t wanted = threads == 1 ? 1 : each * threads;
  return wanted < tiles ? wanted : tiles;
}

// Hands out pieces of one block of memory.
struct Pieces {
  float* at;
  float* take(int64_t floats) {
    float* piece = at;
    at += round_up(floats, 16);
    return piece;
  }
};

// body(i) once for every i of a stage, on all threads of the team.
template <class Body>
static void each(Member& m, int64_t items, Body body, bool one_by_one = false) {
  m.stage(items, one_by_one);
  for (int64_t from, to; m.next(&from, &to);)
    for (int64_t n = from; n < to; ++n) body(n);
}

class PromptTokens {
 public:
  PromptTokens(const TwoWay& a, int64_t prompt, int64_t prompts)
      : a_(a),
        prompt_(prompt),
        rows_(prompts * a.tokens),
        memory_(rows_ * (6 * a.channels + 3 * widest() + a.mlp) + 256) {
    Pieces pieces{memory_.data()};
    float** narrow[] = {&start_, &now, &sum, &mixed_, &image_key, &image_value};
    for (float** p : narrow) *p = pieces.take(rows_ * a.channels);
    float** wide[] = {&query, &key, &value};
    for (float** p : wide) *p = pieces.take(rows_ * widest());
    hidden_ = pieces.take(rows_ * a.mlp);
  }

  void read(Member& m) {
    const float* from = a_.prompt + prompt_ * a_.tokens * a_.channels;
    each(m, 1, [&](int64_t) {
      for (int64_t k = 0; k < rows_ * a_.channels; ++k) start_[k] = now[k] = from[k];
    });
  }

  void write(Member& m) {
    float* to = a_.prompt_out + prompt_ * a_.tokens * a_.channels;
    each(m, 1, [&](int64_t) {
      for (int64_t k = 0; k < rows_ * a_.channels; ++k) to[k] = now[k];
    });
  }

  void attend_to_itself(Member& m, const TwoWayLayer& l, bool first) {
    const float* x = first ? now : sum;
    const int64_t width = a_.channels / a_.heads;
    layer(m, l.self.query, x, a_.channels, query, a_.channels, 1 / __builtin_sqrtf(static_cast<float>(width)));
    layer(m, l.self.key, x, a_.channels, key, a_.channels);
    layer(m, l.self.value, now, a_.channels, value, a_.channels);
    each(m, rows_ / a_.tokens * a_.heads,
         [&](int64_t k) { attend_in_head(k / a_.heads * a_.tokens * a_.channels + k % a_.heads * width, width); });
    layer(m, l.self.out, mixed_, a_.channels, query, a_.channels);
    add_and_normalise(m, query, l.norm1, !first);
  }

  // query = what the prompt asks of the image.
  void ask(Member& m, const AttentionWeights& w) { layer(m, w.query, sum, a_.channels, query, inner(), scale()); }

  // The answer of the image, all heads, stands in `key`.
  void take_answer(Member& m, const AttentionWeights& w, const LayerNorm& norm) {
    layer(m, w.out, key, inner(), query, a_.channels);
    add_and_normalise(m, query, norm);
  }

  // The MLP; then image_key and image_value, which the image tokens attend to.
  void digest(Member& m, const TwoWayLayer& l) {
    layer(m, l.mlp1, now, a_.channels, hidden_, a_.mlp, 1, true);
    layer(m, l.mlp2, hidden_, a_.mlp, mixed_, a_.channels);
    add_and_normalise(m, mixed_, l.norm3);
    layer(m, l.to_prompt.key, sum, a_.channels, image_key, inner(), scale());
    layer(m, l.to_prompt.value, now, a_.channels, image_value, inner());
  }

  // Of the prompt's own part of such a matrix: Side, and rows below.
  const float* of_prompt(int64_t k, const float* x) const { return x + k * a_.tokens * inner(); }
  Side side(int64_t k, const float* x) const { return {Form::projected, of_prompt(k, x), a_.width, inner(), 1}; }

  // rows[h T + t] = x of head h times its rows of `weight` (inner x channels): the projection, absorbed.
  void absorb(int64_t h, const float* x, const float* weight, float* rows) const {
    gemm<false>({x + h * a_.width, inner(), 1}, weight + h * a_.width * a_.channels, a_.channels,
                rows + h * a_.tokens * a_.channels, a_.channels, a_.tokens, a_.channels / N, a_.width);
  }

  // The same with the head's columns of an output projection (channels x inner).
  void absorb_out(int64_t h, const float* x, const float* weight, float* rows) const {
    Scratch memory(a_.width * a_.channels);
    float* turned = memory.data();
    for (int64_t c = 0; c < a_.channels; c += N)
      for (int64_t i = 0; i < a_.width; i += N)
        transpose_tile(weight + c * inner() + h * a_.width + i, inner(), turned + i * a_.channels + c, a_.channels);
    gemm<false>({x + h * a_.width, inner(), 1}, turned, a_.channels, rows + h * a_.tokens * a_.channels, a_.channels,
                a_.tokens, a_.channels / N, a_.width);
  }

  // Prompts x tokens x channels or, of projections, prompts x tokens x heads x width.
  float *now, *sum;                // the tokens, and with their positions
  float *query, *key, *value;      // projections of them
  float *image_key, *image_value;  // the prompt side of the image's question

 private:
  static constexpr int64_t kRowsOfStage = 32;  // outputs of a linear layer that a thread takes at a time

  int64_t inner() const { return a_.heads * a_.width; }
  int64_t widest() const { return a_.channels > inner() ? a_.channels : inner(); }
  float scale() const { return 1 / __builtin_sqrtf(static_cast<float>(a_.width)); }

  // y = scale (W x + b), outputs in parallel.
  void layer(Member& m, const Linear& l, const float* x, int64_t depth, float* y, int64_t rows, float scale = 1,
             bool relu = false) {
    each(m, (rows + kRowsOfStage - 1) / kRowsOfStage, [&](int64_t block) {
      const int64_t from = block * kRowsOfStage, count = rows - from < kRowsOfStage ? rows - from : kRowsOfStage;
      linear(l.weight + from * depth, x, depth, y + from, rows, count, rows_, depth);
      for (int64_t t = 0; t < rows_; ++t)
        for (int64_t r = from; r < from + count; ++r) {
          const float out = (y[t * rows + r] + (l.bias ? l.bias[r] : 0.f)) * scale;
          y[t * rows + r] = relu && out < 0 ? 0 : out;
        }
    });
  }

  // now = norm(now + x), and sum = now + start.
  void add_and_normalise(Member& m, const float* x, const LayerNorm& norm, bool keep = true) {
    each(m, rows_, [&](int64_t t) {
      float* row = now + t * a_.channels;
      vf total = broadcast(0.f), squares = total;
      for (int64_t c = 0; c < a_.channels; c += N) {
        const vf added = loadu(x + t * a_.channels + c), out = keep ? loadu(row + c) + added : added;
        storeu(row + c, out);
        total = total + out;
      }
      const vf mean = broadcast(FP_ISA::sum(total) / a_.channels);
      for (int64_t c = 0; c < a_.channels; c += N) squares = fma(loadu(row + c) - mean, loadu(row + c) - mean, squares);
      const vf scale = broadcast(1 / __builtin_sqrtf(FP_ISA::sum(squares) / a_.channels + norm.eps));
      for (int64_t c = 0; c < a_.channels; c += N) {
        const vf out = fma((loadu(row + c) - mean) * scale, loadu(norm.weight + c), loadu(norm.bias + c));
        storeu(row + c, out);
        storeu(sum + t * a_.channels + c, out + loadu(start_ + t * a_.channels + c));
      }
    });
  }

  void attend_in_head(int64_t first, int64_t width) {
    Scratch memory(a_.tokens * a_.tokens + N);
    for (int64_t t = 0; t < a_.tokens; ++t) {
      float* logits = memory.data() + t * a_.tokens;
      for (int64_t u = 0; u < a_.tokens; ++u) {
        vf total = broadcast(0.f);
        for (int64_t i = first; i < first + width; i += N)
          total = fma(loadu(query + t * a_.channels + i), loadu(key + u * a_.channels + i), total);
        logits[u] = FP_ISA::sum(total);
      }
      softmax(logits);
    }
    gemm<false>({memory.data(), a_.tokens, 1}, value + first, a_.channels, mixed_ + first, a_.channels, a_.tokens,
                width / N, a_.tokens);
  }

  void softmax(float* logits) const {
    float peak = kLowest, total = 0;
    for (int64_t u = 0; u < a_.tokens; ++u) peak = logits[u] > peak ? logits[u] : peak;
    for (int64_t u = 0; u < a_.tokens; ++u) total += logits[u] = exp(broadcast(logits[u] - peak))[0];
    for (int64_t u = 0; u < a_.tokens; ++u) logits[u] /= total;
  }

  const TwoWay& a_;
  const int64_t prompt_, rows_;
  Scratch memory_;
  float *start_, *mixed_, *hidden_;
};

}  // namespace FP_ISA
}  // namespace fastprompt
