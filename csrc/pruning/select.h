// The highest scores of every image, exactly and in ascending order of their places.
#pragma once
#include <cstdint>

namespace fastprompt {

struct SelectTokens {
  int64_t batch, tokens, count;
  const float* scores;    // (batch, tokens); NaN counts as -inf, -0 as 0
  const uint8_t* always;  // (batch, tokens), not 0: kept before every score; or null
  const int64_t* counts;  // (batch): kept of each image, 0 to `count`; null: `count`
  double background;      // share of the kept that are taken evenly from those that the scores leave
  int64_t* index;         // (batch, count), ascending, equal scores by the lowest place; -1 behind the last
  int threads;
};

// The first image where `always` marks more tokens than are kept; -1: none.
int64_t select_tokens(const SelectTokens& args);

// An integer in the order of the floats.
uint32_t sort_key(float x);

// The k highest of n keys are those over `key`, and the first `ties` that equal it.
struct Bound {
  uint32_t key;
  int64_t ties;
  bool takes(uint32_t other) { return other > key || (other == key && ties-- > 0); }
};
Bound bound_of_highest(const uint32_t* keys, int64_t n, int64_t k);

}  // namespace fastprompt
