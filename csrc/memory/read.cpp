#include "memory/read.h"

#include <algorithm>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {

void memory_read(const MemoryRead& a) {
  MemoryHead head{a, bf16(a.precision), 0, 0, nullptr};
  const Scratch packed(FP_DISPATCH(memory_floats)(head));
  head.packed = packed.data();
  for (int64_t n = 0; n < a.images * a.heads; ++n) {
    head.image = n / a.heads, head.head = n % a.heads;
    parallel_for(a.threads, head.blocks(), [&](int64_t b) { FP_DISPATCH(memory_pack)(head, b); });
    parallel_for(a.threads, (a.queries + kMemoryQueries - 1) / kMemoryQueries, [&](int64_t k) {
      const int64_t first = k * kMemoryQueries;
      FP_DISPATCH(memory_queries)(head, first, std::min(first + kMemoryQueries, a.queries));
    });
  }
}

}  // namespace fastprompt
