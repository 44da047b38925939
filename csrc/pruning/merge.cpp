#include "pruning/merge.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/parallel.h"
#include "common/scratch.h"
#include "pruning/select.h"

namespace fastprompt {
namespace {

// The r highest of the even tokens leave; everybody's place afterwards.
void place(const MatchTokens& a, int64_t image, const float* best, const int32_t* partner) {
  std::vector<uint32_t> keys(a.evens);
  for (int64_t i = 0; i < a.evens; ++i) keys[i] = sort_key(best[i]);
  Bound bound = bound_of_highest(keys.data(), a.evens, a.merged);
  int64_t *kept = a.kept + image * (a.tokens - a.merged), *target = a.target + image * a.tokens, places = 0;
  for (int64_t n = 0; n < a.tokens; ++n) {
    const bool leaves = n % 2 == 0 && n >= a.first_even && bound.takes(keys[(n - a.first_even) / 2]);
    target[n] = leaves ? -1 : places;
    if (!leaves) kept[places++] = n;
  }
  for (int64_t i = 0; i < a.evens; ++i) {
    int64_t& to = target[a.first_even + 2 * i];
    if (to < 0) to = target[a.first_odd + 2 * partner[i]];
  }
}

// Channels [first, last) of one image.
void merge_part(const MergeRows& a, int64_t image, int64_t first, int64_t last) {
  const int64_t left = a.tokens - a.merged, *kept = a.kept + image * left, *target = a.target + image * a.tokens;
  const float *x = a.data + image * a.tokens * a.channels, *size = a.size + image * a.tokens;
  std::vector<int64_t> head(left, -1), next(a.tokens);  // chains of those that merge into a token, ascending
  for (int64_t n = a.tokens - 1; n >= 0; --n) {
    const int64_t m = target[n];
    if (m >= 0 && m < left && kept[m] != n) next[n] = head[m], head[m] = n;
  }
  for (int64_t m = 0; m < left; ++m) {
    const bool there = kept[m] >= 0 && kept[m] < a.tokens;
    const float* own = x + (there ? kept[m] : 0) * a.channels;
    float* out = a.out + (image * left + m) * a.channels;
    if (!there) std::memset(out + first, 0, (last - first) * sizeof(float));
    if (there && head[m] < 0) std::memcpy(out + first, own + first, (last - first) * sizeof(float));
    if (!there || head[m] < 0) continue;
    float total = size[kept[m]];
    for (int64_t c = first; c < last; ++c) out[c] = total * own[c];
    for (int64_t n = head[m]; n >= 0; n = next[n]) {
      const float *from = x + n * a.channels, weight = size[n];
      for (int64_t c = first; c < last; ++c) out[c] += weight * from[c];
      total += weight;
    }
    for (int64_t c = first; c < last; ++c) out[c] /= total;
  }
}

}  // namespace

void match_tokens(MatchTokens a) {
  const auto half = [&](int64_t first) { return a.tokens > first ? (a.tokens - first + 1) / 2 : 0; };
  a.first_even = a.spared + a.spared % 2, a.first_odd = a.spared + 1 - a.spared % 2;
  a.evens = half(a.first_even), a.odds = half(a.first_odd);
  const int64_t evens = a.evens, panels = (a.odds + kPanel - 1) / kPanel;
  const int64_t each_even = evens * a.width, each_odd = panels * a.width * kPanel;
  Scratch even(a.batch * each_even), odd(a.batch * each_odd);
  std::vector<float> best(a.batch * evens);
  std::vector<int32_t> partner(a.batch * evens);
  parallel_for(a.threads, a.batch, [&](int64_t b) {
    FP_DISPATCH(match_prepare)(a, b, even.data() + b * each_even, odd.data() + b * each_odd);
  });
  const int64_t blocks = (evens + kMatchRows - 1) / kMatchRows;
  parallel_for(a.threads, a.merged ? a.batch * blocks : 0, [&](int64_t k) {
    const int64_t b = k / blocks, first = k % blocks * kMatchRows, last = std::min(first + kMatchRows, evens);
    FP_DISPATCH(match_rows)
    (a, even.data() + b * each_even, odd.data() + b * each_odd, first, last, best.data() + b * evens + first,
     partner.data() + b * evens + first);
  });
  parallel_for(a.threads, a.batch,
               [&](int64_t b) { place(a, b, best.data() + b * evens, partner.data() + b * evens); });
}

void merge_rows(const MergeRows& a) {
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(a.threads, a.channels / 64));
  parallel_for(a.threads, a.batch * parts, [&](int64_t k) {
    const int64_t part = k % parts;
    merge_part(a, k / parts, a.channels * part / parts, a.channels * (part + 1) / parts);
  });
}

}  // namespace fastprompt
