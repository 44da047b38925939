#include "memory/read.h"

#include "common/interrupt.h"
#include "common/online_softmax.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

static_assert(kMemoryQueries <= kQueries, "OnlineSoftmax has room for these");

// Row of a token of one head in (images, tokens, heads, width).
const float* row_of(const float* data, const MemoryHead& h, int64_t tokens, int64_t token, int64_t width) {
  return data + ((h.image * tokens + token) * h.args.heads + h.head) * width;
}

int64_t count_of(const MemoryHead& h, int64_t block) {
  const int64_t left = h.args.keys - block * kMemoryKeys;
  return left < kMemoryKeys ? left : kMemoryKeys;
}

}  // namespace

void memory_pack(const MemoryHead& h, int64_t block) {
  const MemoryRead& a = h.args;
  const int64_t keys = count_of(h, block);
  Scratch memory(kMemoryKeys * (a.width > a.depth ? a.width : a.depth));
  float* rows = memory.data();
  for (int64_t n = 0; n < keys; ++n)
    copy_floats(row_of(a.key, h, a.keys, block * kMemoryKeys + n, a.width), rows + n * a.width, a.width);
  turned_to_slabs(rows, keys, a.width, h.keys_of(block));
  for (int64_t n = 0; n < keys; ++n)
    copy_floats(row_of(a.value, h, a.keys, block * kMemoryKeys + n, a.depth), rows + n * a.depth, a.depth);
  rows_to_slabs(rows, keys, a.depth, kMemoryKeys, h.values_of(block));
}

void memory_queries(const MemoryHead& h, int64_t first, int64_t last) {
  const MemoryRead& a = h.args;
  const int64_t rows = last - first, blocks = (a.keys + kMemoryKeys - 1) / kMemoryKeys;
  Scratch memory(kQueries * (a.width + kMemoryKeys) + OnlineSoftmax::floats(a.depth));
  float *q = memory.data(), *logits = q + kQueries * a.width;
  OnlineSoftmax softmax;
  softmax.place(logits + kQueries * kMemoryKeys, a.depth, a.depth);
  const vf scale = broadcast(a.scale * kLog2e);
  for (int64_t i = 0; i < rows; ++i) {
    const float* from = row_of(a.query, h, a.queries, first + i, a.width);
    for (int64_t d = 0; d < a.width; d += N) storeu(q + i * a.width + d, loadu(from + d) * scale);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    checkpoint();
    const int64_t keys = count_of(h, b), vectors = (keys + N - 1) / N;
    multiply_slabs<false>({q, a.width, 1}, h.keys_of(b), a.width, logits, kMemoryKeys, rows, vectors, a.width);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t k = keys; k < vectors * N; ++k) logits[i * kMemoryKeys + k] = kLowest;
      softmax.weigh(i, b == 0, 0.f, logits + i * kMemoryKeys, vectors);
    }
    const Left weights{logits, kMemoryKeys, 1};
    const float* values = h.values_of(b);
    float* sums = softmax.sums();
    b == 0 ? multiply_slabs<false>(weights, values, kMemoryKeys, sums, a.depth, rows, a.depth / N, keys)
           : multiply_slabs<true>(weights, values, kMemoryKeys, sums, a.depth, rows, a.depth / N, keys);
  }
  for (int64_t i = 0; i < rows; ++i) {
    float* out = const_cast<float*>(row_of(a.out, h, a.queries, first + i, a.depth));
    a.log_weight[(h.image * a.heads + h.head) * a.queries + first + i] = softmax.finish(i, out);
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
