#include "metrics/counts.h"

#include <algorithm>
#include <vector>

#include "common/interrupt.h"
#include "common/parallel.h"

namespace fastprompt {

void overlap_counts(const OverlapCounts& args) {
  const int threads = args.masks * args.pixels < 1 << 17 ? 1 : args.threads;  // 10 us: about what waking a thread takes
  parallel_for(threads, args.masks, [&](int64_t mask) { FP_DISPATCH(overlap_of_mask)(args, mask); });
}

namespace {

// Most pixels are right, and cost one count. NOTE: neighbours mostly have the same label: counted in one table, each
// would wait for the store of the one before.
template <class T>
void count_classes(const ClassCounts& a) {
  constexpr int kTables = 4;
  const int64_t size = a.classes + 1;  // the last entry takes every label that is no class
  const auto limit = static_cast<uint64_t>(a.classes), ignore = static_cast<uint64_t>(a.ignore);
  std::vector<int64_t> right(kTables * size), pred_only(size), target_only(size);
  const T *pred = static_cast<const T*>(a.pred), *target = static_cast<const T*>(a.target);
  for (int64_t k = 0; k < a.pixels; ++k) {
    if (k % (1 << 20) == 0) checkpoint();
    const auto p = static_cast<uint64_t>(pred[k]), t = static_cast<uint64_t>(target[k]);  // < 0: above every class
    if (p == t) {
      right[k % kTables * size + std::min(t, limit)] += 1;
    } else if (t < limit && t != ignore) {
      pred_only[std::min(p, limit)] += 1, target_only[t] += 1;
    }
  }
  for (int64_t c = 0; c < a.classes; ++c) {
    int64_t both = 0;
    for (int64_t table = 0; table < kTables && c != a.ignore; ++table) both += right[table * size + c];
    a.out[3 * c] = both, a.out[3 * c + 1] = both + pred_only[c], a.out[3 * c + 2] = both + target_only[c];
  }
}

}  // namespace

void class_counts(const ClassCounts& args) {
  args.bytes == 1 ? count_classes<uint8_t>(args) : count_classes<int64_t>(args);
}

void pair_counts(const PairCounts& args) {
  const int threads = args.rows * args.columns * args.words < 1 << 15 ? 1 : args.threads;
  parallel_for(threads, args.rows, [&](int64_t row) { FP_DISPATCH(pairs_of_row)(args, row); });
}

}  // namespace fastprompt
