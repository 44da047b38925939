#include "pruning/score.h"

#include "common/math.h"
#include "pruning/unit.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int kTokens = N == 16 ? 4 : 2;  // side by side: a prompt is loaded once for them
constexpr int kPrompts = 4;

// `best` rises to the largest product with one of P prompts; `length` becomes that of the token.
template <int T, int P>
void dot_block(const float* x, ptrdiff_t row, int64_t channels, const float* unit, int64_t width, float* best,
               float* length) {
  vf dot[T][P], square[T];
  for (int t = 0; t < T; ++t) {
    square[t] = broadcast(0.f);
    for (int p = 0; p < P; ++p) dot[t][p] = broadcast(0.f);
  }
  float rest[T][N] = {};  // the channels behind the last whole vector
  const int64_t whole = channels / N * N;
  for (int t = 0; t < T; ++t)
    for (int64_t c = whole; c < channels; ++c) rest[t][c - whole] = x[t * row + c];
  for (int64_t c = 0; c < channels; c += N) {
    vf token[T];
    for (int t = 0; t < T; ++t) {
      __builtin_prefetch(x + (t + T) * row + c);
      token[t] = loadu(c < whole ? x + t * row + c : rest[t]);
      square[t] = fma(token[t], token[t], square[t]);
    }
    for (int p = 0; p < P; ++p) {
      const vf prompt = loadu(unit + p * width + c);
      for (int t = 0; t < T; ++t) dot[t][p] = fma(token[t], prompt, dot[t][p]);
    }
  }
  for (int t = 0; t < T; ++t) {
    length[t] = length_of(sum(square[t]));
    for (int p = 0; p < P; ++p) {
      const float d = sum(dot[t][p]);
      best[t] = d > best[t] || d != d ? d : best[t];
    }
  }
}

template <int T>
void score_block(const float* x, ptrdiff_t row, int64_t channels, const float* unit, int64_t width, int64_t prompts,
                 float* out) {
  float best[T], length[T] = {};
  for (int t = 0; t < T; ++t) best[t] = -__builtin_inff();
  for (; prompts >= kPrompts; prompts -= kPrompts, unit += kPrompts * width)
    dot_block<T, kPrompts>(x, row, channels, unit, width, best, length);
  if (prompts == 1) dot_block<T, 1>(x, row, channels, unit, width, best, length);
  if (prompts == 2) dot_block<T, 2>(x, row, channels, unit, width, best, length);
  if (prompts == 3) dot_block<T, 3>(x, row, channels, unit, width, best, length);
  for (int t = 0; t < T; ++t) out[t] = best[t] / length[t];
}

}  // namespace

void unit_prompts(const CosineScores& a, int64_t image, int64_t width, float* out) {
  for (int64_t p = 0; p < a.prompts; ++p, out += width) {
    const float* from = a.prompt + (image * a.prompts + p) * a.channels;
    const float length = length_of(squares(from, a.channels));
    for (int64_t c = 0; c < width; ++c) out[c] = c < a.channels ? from[c] / length : 0.f;
  }
}

void score_tokens(const CosineScores& a, const float* unit, int64_t width, int64_t image, int64_t first, int64_t last) {
  const float* x = a.data + image * a.stride[0];
  float* out = a.out + image * a.tokens;
  int64_t n = first;
  for (; n + kTokens <= last; n += kTokens)
    score_block<kTokens>(x + n * a.stride[1], a.stride[1], a.channels, unit, width, a.prompts, out + n);
  for (; n < last; ++n) score_block<1>(x + n * a.stride[1], 0, a.channels, unit, width, a.prompts, out + n);
}

}  // namespace FP_ISA
}  // namespace fastprompt
