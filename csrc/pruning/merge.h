// Bipartite merging: every even token and its most similar odd one; the r most similar pairs become one token each.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

struct MatchTokens {
  int64_t batch, tokens, width;
  const float* metric;  // (batch, tokens, width), compared by the cosine; NaN is similar to nothing
  int64_t merged;       // r, at most (tokens - spared) / 2
  int64_t spared;       // the first tokens, which neither merge nor are merged into
  int64_t* kept;        // (batch, tokens - merged): tokens that stay, ascending
  int64_t* target;      // (batch, tokens): where each token is then, as a place in `kept`
  int threads;

  int64_t first_even, evens, first_odd, odds;  // those that take part: filled in by match_tokens
};

// out[b][m] = sum over {n: target = m} of size x / sum of size; a token that is alone is copied.
struct MergeRows {
  int64_t batch, tokens, merged, channels;
  const float* data;    // (batch, tokens, channels)
  const float* size;    // (batch, tokens)
  const int64_t* kept;  // as above
  const int64_t* target;
  float* out;  // (batch, tokens - merged, channels)
  int threads;
};

void match_tokens(MatchTokens args);
void merge_rows(const MergeRows& args);

constexpr int64_t kPanel = 64;  // odd tokens side by side: 16 KiB of a width of 64 stay in the L1 cache

// Even tokens with length 1, (evens, width), and odd ones, (panels, width, kPanel), zeros behind the last.
FP_DECLARE_ISA(void, match_prepare, (const MatchTokens& args, int64_t image, float* evens, float* odds))
// Of the even tokens [first, last), at most kMatchRows: the largest cosine and the number of that odd token.
constexpr int64_t kMatchRows = 64;
FP_DECLARE_ISA(void, match_rows,
               (const MatchTokens& args, const float* evens, const float* odds, int64_t first, int64_t last,
                float* best, int32_t* partner))

}  // namespace fastprompt
