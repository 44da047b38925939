// Many queries read a memory of many keys: out = softmax(scale q k^T) v, without the matrix of weights.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

struct MemoryRead {
  int64_t images, heads, queries, keys;
  int64_t width, depth;  // of a key and of a value: multiples of 16
  const float* query;    // (images, queries, heads, width)
  const float* key;      // (images, keys, heads, width)
  const float* value;    // (images, keys, heads, depth)
  float scale;
  float* out;         // (images, queries, heads, depth)
  float* log_weight;  // (images, heads, queries): log of the sum of e^logit
  int threads;
};

void memory_read(const MemoryRead& args);

// ---------------------------------------------------------------- what the tasks of a call share

constexpr int64_t kMemoryKeys = 256;  // of a block: its keys, turned, stay in the L2 cache with those of the next

constexpr int64_t kMemoryUnit = 32;  // floats: slabs are whole for any instruction set

struct MemoryHead {
  const MemoryRead& args;
  int64_t image, head;
  float *keys, *values;  // slabs of every block of keys: (width, kMemoryKeys), (kMemoryKeys, columns)

  FP_INLINE int64_t columns() const { return (args.depth + kMemoryUnit - 1) / kMemoryUnit * kMemoryUnit; }
  FP_INLINE float* keys_of(int64_t block) const { return keys + block * kMemoryKeys * args.width; }
  FP_INLINE float* values_of(int64_t block) const { return values + block * kMemoryKeys * columns(); }
};

FP_DECLARE_ISA(void, memory_pack, (const MemoryHead& head, int64_t block))
FP_DECLARE_ISA(void, memory_queries, (const MemoryHead& head, int64_t first, int64_t last))

constexpr int64_t kMemoryQueries = 64;  // of a task, at most

}  // namespace fastprompt
