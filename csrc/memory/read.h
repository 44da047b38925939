// Many queries read a memory of many keys: out = softmax(scale R q (R' k)^T) v, without the matrix of weights.
#pragma once
#include <cstdint>

#include "common/bf16.h"
#include "common/isa.h"

namespace fastprompt {

struct MemoryRead {
  int64_t images, heads, queries, keys;
  int64_t width, depth;            // of a key and of a value
  const float* query;              // (images, queries, heads, width)
  const float* key;                // (images, keys, heads, width)
  const float* value;              // (images, keys, heads, depth)
  const float *cos, *sin;          // (queries, width), by which pairs (2 i, 2 i + 1) of a query are turned; null: not
  const float *key_cos, *key_sin;  // (positions, width), for the keys again and again
  int64_t positions, unturned;     // the last `unturned` keys are not
  float scale;
  float* out;           // (images, queries, heads, depth)
  float* log_weight;    // (images, heads, queries): log of the sum of e^logit; or null
  Precision precision;  // of the two products
  int threads;
};

void memory_read(const MemoryRead& args);

// ---------------------------------------------------------------- what the tasks of a call share

constexpr int64_t kMemoryQueries = 64;  // of a task, at most

struct MemoryHead {
  const MemoryRead& args;
  const Bf16* engine;  // null: float32
  int64_t image, head;
  float* packed;  // keys and values of all blocks

  // Of a block: its keys, turned, stay in the L2 cache with those of the next.
  FP_INLINE int64_t block_keys() const { return engine ? 128 : 256; }
  FP_INLINE int64_t blocks() const { return (args.keys + block_keys() - 1) / block_keys(); }
};

FP_DECLARE_ISA(int64_t, memory_floats, (const MemoryHead& head))
FP_DECLARE_ISA(void, memory_pack, (const MemoryHead& head, int64_t block))
FP_DECLARE_ISA(void, memory_queries, (const MemoryHead& head, int64_t first, int64_t last))

}  // namespace fastprompt
