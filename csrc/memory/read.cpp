#include "memory/read.h"

#include <algorithm>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {

void memory_read(const MemoryRead& a) {
  const int64_t blocks = (a.keys + kMemoryKeys - 1) / kMemoryKeys;
  Scratch memory(blocks * kMemoryKeys * (a.width + MemoryHead{a, 0, 0, nullptr, nullptr}.columns()));
  for (int64_t n = 0; n < a.images * a.heads; ++n) {
    const MemoryHead head{a, n / a.heads, n % a.heads, memory.data(), memory.data() + blocks * kMemoryKeys * a.width};
    parallel_for(a.threads, blocks, [&](int64_t b) { FP_DISPATCH(memory_pack)(head, b); });
    parallel_for(a.threads, (a.queries + kMemoryQueries - 1) / kMemoryQueries, [&](int64_t k) {
      const int64_t first = k * kMemoryQueries;
      FP_DISPATCH(memory_queries)(head, first, std::min(first + kMemoryQueries, a.queries));
    });
  }
}

}  // namespace fastprompt
