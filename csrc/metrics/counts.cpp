#include "metrics/counts.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"

namespace fastprompt {

void overlap_counts(const OverlapCounts& args) {
  const int threads = args.masks * args.pixels < 1 << 17 ? 1 : args.threads;  // 10 us: about what waking a thread takes
  parallel_for(threads, args.masks, [&](int64_t mask) { FP_DISPATCH(overlap_of_mask)(args, mask); });
}

// NOTE: neighbours mostly have the same label: counted in one table, each would wait for the store of the one before.
void class_counts(const ClassCounts& a) {
  constexpr int kTables = 4;
  const int64_t size = a.classes + 1;  // the last entry takes every label that is no class
  std::vector<int64_t> tables(kTables * 3 * size);
  for (int64_t k = 0; k < a.pixels; ++k) {
    int64_t* both = tables.data() + k % kTables * 3 * size;
    const auto limit = static_cast<uint32_t>(a.classes);
    const uint32_t t = std::min(static_cast<uint32_t>(a.target[k]), limit);
    const uint32_t p = t == limit ? limit : std::min(static_cast<uint32_t>(a.pred[k]), limit);
    both[p == t ? t : limit] += 1;
    both[size + p] += 1;
    both[2 * size + t] += 1;
  }
  for (int64_t table = 0; table < kTables; ++table)
    for (int kind = 0; kind < 3; ++kind)
      for (int64_t c = 0; c < a.classes; ++c) a.out[3 * c + kind] += tables[(table * 3 + kind) * size + c];
}

void pair_counts(const PairCounts& args) {
  const int threads = args.rows * args.columns * args.words < 1 << 15 ? 1 : args.threads;
  parallel_for(threads, args.rows, [&](int64_t row) { FP_DISPATCH(pairs_of_row)(args, row); });
}

}  // namespace fastprompt
