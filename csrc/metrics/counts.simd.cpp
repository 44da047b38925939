#include "metrics/counts.h"

#include "common/simd.h"

namespace fastprompt {
namespace FP_ISA {

typedef uint8_t vb __attribute__((vector_size(sizeof(vf)), aligned(1), may_alias));
constexpr int64_t kBytes = sizeof(vb);
constexpr int64_t kChunk = 255 * kBytes;  // counts in bytes do not overflow

static inline int64_t sum(vb x) {
  int64_t total = 0;
  for (int k = 0; k < kBytes; ++k) total += x[k];
  return total;
}

struct Counts {
  int64_t both = 0, pred = 0, target = 0, valid = 0;

  void pixel(uint8_t p, uint8_t t, int ignore) {
    const bool counts = t != ignore;
    both += counts && p && t, pred += counts && p, target += counts && t, valid += counts;
  }
};

// n is a multiple of kBytes, at most kChunk. A comparison is 0 or -1 in each byte.
static inline void count_chunk(const uint8_t* p, const uint8_t* t, int64_t n, int ignore, Counts* c) {
  vb both{}, pred{}, target{}, dropped{};
  const vb skipped = vb{} + static_cast<uint8_t>(ignore);
  for (int64_t k = 0; k < n; k += kBytes) {
    const vb tk = *reinterpret_cast<const vb*>(t + k), pk = *reinterpret_cast<const vb*>(p + k);
    vb in_pred = (vb)(pk != 0), in_target = (vb)(tk != 0);
    if (ignore >= 0) {
      const vb drop = (vb)(tk == skipped);
      in_pred &= ~drop, in_target &= ~drop, dropped -= drop;
    }
    both -= in_pred & in_target, pred -= in_pred, target -= in_target;
  }
  c->both += sum(both), c->pred += sum(pred), c->target += sum(target), c->valid += n - sum(dropped);
}

void overlap_of_mask(const OverlapCounts& a, int64_t mask) {
  uint8_t room[kChunk];
  const int64_t begin = mask * a.pixels;
  Counts counts;
  for (int64_t k = 0; k < a.pixels; k += kChunk) {
    const int64_t n = a.pixels - k < kChunk ? a.pixels - k : kChunk, whole = n / kBytes * kBytes;
    const uint8_t *p = mask_pixels(a.pred, begin + k, n, room), *t = a.target + begin + k;
    count_chunk(p, t, whole, a.ignore, &counts);
    for (int64_t j = whole; j < n; ++j) counts.pixel(p[j], t[j], a.ignore);
  }
  int64_t* out = a.out + 4 * mask;
  out[0] = counts.both, out[1] = counts.pred, out[2] = counts.target, out[3] = counts.valid;
}

void pairs_of_row(const PairCounts& a, int64_t row) {
  const uint64_t* first = a.first + row * a.words;
  for (int64_t column = 0; column < a.columns; ++column) {
    const uint64_t* second = a.second + column * a.words;
    int64_t total = 0;
    for (int64_t k = 0; k < a.words; ++k) total += __builtin_popcountll(first[k] & second[k]);
    a.out[row * a.columns + column] = total;
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
