#include "attention/memory.h"

#include "attention/relative_tile.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr float kRise = 12;  // in units of log2: a peak may be passed by this much before the sums are rescaled

// Row of a token of one head in (images, tokens, heads, width).
const float* row_of(const float* data, const MemoryHead& h, int64_t tokens, int64_t token, int64_t width) {
  return data + ((h.image * tokens + token) * h.args.heads + h.head) * width;
}

int64_t count_of(const MemoryHead& h, int64_t block) {
  const int64_t left = h.args.keys - block * kMemoryKeys;
  return left < kMemoryKeys ? left : kMemoryKeys;
}

struct Row {
  float peak;
  float total[N];
};

// Logits, relative to the peak that the row has, become weights; the peak moves if it must.
void weigh(Row& row, int64_t vectors, bool first, float* logits, float* sums, int64_t depth) {
  vf most = loadu(logits);
  for (int64_t v = 1; v < vectors; ++v) most = max(loadu(logits + v * N), most);
  const float top = maximum(most);
  if (first) {
    row.peak = top;
    storeu(row.total, broadcast(0.f));
  } else if (top > row.peak + kRise) {
    const vf factor = exp2(broadcast(row.peak - top));
    row.peak = top;
    storeu(row.total, loadu(row.total) * factor);
    for (int64_t d = 0; d < depth; d += N) storeu(sums + d, loadu(sums + d) * factor);
  }
  vf total = loadu(row.total);
  for (int64_t v = 0; v < vectors; ++v) {
    const vf weight = exp2(loadu(logits + v * N) - broadcast(row.peak));
    storeu(logits + v * N, weight);
    total = total + weight;
  }
  storeu(row.total, total);
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
  Scratch memory(kMemoryQueries * (a.width + a.depth + kMemoryKeys));
  float *q = memory.data(), *sums = q + kMemoryQueries * a.width, *logits = sums + kMemoryQueries * a.depth;
  Row state[kMemoryQueries];
  const vf scale = broadcast(a.scale * kLog2e);
  for (int64_t i = 0; i < rows; ++i) {
    const float* from = row_of(a.query, h, a.queries, first + i, a.width);
    for (int64_t d = 0; d < a.width; d += N) storeu(q + i * a.width + d, loadu(from + d) * scale);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t keys = count_of(h, b), vectors = (keys + N - 1) / N;
    multiply_slabs<false>({q, a.width, 1}, h.keys_of(b), a.width, logits, kMemoryKeys, rows, vectors, a.width);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t k = keys; k < vectors * N; ++k) logits[i * kMemoryKeys + k] = kLowest;
      weigh(state[i], vectors, b == 0, logits + i * kMemoryKeys, sums + i * a.depth, a.depth);
    }
    const Left weights{logits, kMemoryKeys, 1};
    const float* values = h.values_of(b);
    b == 0 ? multiply_slabs<false>(weights, values, kMemoryKeys, sums, a.depth, rows, a.depth / N, keys)
           : multiply_slabs<true>(weights, values, kMemoryKeys, sums, a.depth, rows, a.depth / N, keys);
  }
  for (int64_t i = 0; i < rows; ++i) {
    const float total = sum(loadu(state[i].total));
    float* out = const_cast<float*>(row_of(a.out, h, a.queries, first + i, a.depth));
    for (int64_t d = 0; d < a.depth; d += N) storeu(out + d, loadu(sums + i * a.depth + d) * broadcast(1.f / total));
    a.log_weight[(h.image * a.heads + h.head) * a.queries + first + i] =
        (state[i].peak + __builtin_log2f(total)) * kLn2;
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
