#include "pruning/select.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/parallel.h"

namespace fastprompt {
namespace {

constexpr uint32_t kAlways = 0xffffffff;  // above the key of +inf

// Returns how many are marked.
int64_t make_keys(const SelectTokens& a, int64_t image, uint32_t* keys) {
  const float* scores = a.scores + image * a.tokens;
  for (int64_t n = 0; n < a.tokens; ++n) keys[n] = sort_key(scores[n]);
  if (!a.always) return 0;
  int64_t marked = 0;
  for (int64_t n = 0; n < a.tokens; ++n)
    if (a.always[image * a.tokens + n]) keys[n] = kAlways, ++marked;
  return marked;
}

bool select_image(const SelectTokens& a, int64_t image) {
  std::vector<uint32_t> keys(a.tokens);
  const int64_t marked = make_keys(a, image, keys.data());
  const int64_t wanted = a.counts ? a.counts[image] : a.count;
  const int64_t kept = std::min(std::max<int64_t>(wanted, 0), std::min(a.count, a.tokens));
  if (marked > kept) return false;
  const int64_t samples = std::min(static_cast<int64_t>(a.background * kept), kept - marked);
  const int64_t rest = a.tokens - (kept - samples);
  Bound bound = bound_of_highest(keys.data(), a.tokens, kept - samples);
  int64_t *out = a.index + image * a.count, passed = 0, sample = 0;
  for (int64_t n = 0; n < a.tokens; ++n) {
    bool take = bound.takes(keys[n]);
    // Sample j is number floor((j + 1/2) rest / samples) of those that the scores leave.
    if (!take && sample < samples && passed++ == (2 * sample + 1) * rest / (2 * samples)) take = true, ++sample;
    if (take) *out++ = n;
  }
  std::fill(out, a.index + (image + 1) * a.count, -1);
  return true;
}

}  // namespace

uint32_t sort_key(float x) {
  x = x != x ? -__builtin_inff() : x + 0.f;  // -0 becomes 0
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

// By radix from the highest bits: three counts of 11, 11 and 10 bits. The time does not depend on the values.
Bound bound_of_highest(const uint32_t* keys, int64_t n, int64_t k) {
  if (k <= 0) return {kAlways, 0};
  const int shifts[] = {21, 10, 0}, bits[] = {11, 11, 10};
  uint32_t key = 0, known = 0;
  for (int r = 0; r < 3; ++r) {
    const uint32_t last = (1u << bits[r]) - 1;
    int64_t count[2048] = {};
    for (int64_t i = 0; i < n; ++i) count[(keys[i] >> shifts[r]) & last] += (keys[i] & known) == key;
    uint32_t digit = last;
    for (; digit > 0 && count[digit] < k; --digit) k -= count[digit];
    key |= digit << shifts[r], known |= last << shifts[r];
  }
  return {key, k};
}

int64_t select_tokens(const SelectTokens& a) {
  std::vector<uint8_t> fine(a.batch);
  parallel_for(a.threads, a.batch, [&](int64_t image) { fine[image] = select_image(a, image); });
  const auto bad = std::find(fine.begin(), fine.end(), 0);
  return bad == fine.end() ? -1 : bad - fine.begin();
}

}  // namespace fastprompt
