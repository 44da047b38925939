#include "memory/projected.h"

#include <algorithm>
#include <cstring>

#include "common/parallel.h"
#include "common/scratch.h"
#include "encoder/layer.h"
#include "memory/read.h"

namespace fastprompt {
namespace {

// The first half of a row is that of its column in every row of the grid, the second that of its row in every column.
bool axial(const float* table, const ProjectedRead& a) {
  const int64_t half = a.width / 2, bytes = half * sizeof(float);
  for (int64_t y = 0; y < a.rows; ++y)
    for (int64_t x = 0; x < a.columns; ++x) {
      const float* row = table + (y * a.columns + x) * a.width;
      if (std::memcmp(row, table + x * a.width, bytes)) return false;
      if (std::memcmp(row + half, table + y * a.columns * a.width + half, bytes)) return false;
    }
  return true;
}

// Multiplications of one query: tables and then products with the tokens, or products with the keys.
bool tables_pay(const ProjectedRead& a) {
  const int64_t turned = a.keys - a.unturned;
  return (a.rows + a.columns) * a.width / 2 * a.depth + (turned + a.rows * a.columns) * a.depth < turned * a.width;
}

void read_by_tables(const ProjectedRead& a) {
  const int64_t half = a.width / 2, packed = (a.keys - a.unturned) * a.depth;
  const Scratch memory(a.width * (a.depth + 1) + 2 * packed);
  float *weights = memory.data(), *sources = weights + a.width * (a.depth + 1);
  for (int64_t d = 0; d < a.width; ++d) {
    float* to = weights + d / half * half * (a.depth + 1) + d % half;
    for (int64_t c = 0; c < a.depth; ++c) to[c * half] = a.weight[d * a.depth + c];
    to[a.depth * half] = a.bias[d];
  }
  for (int64_t n = 0; n < a.images; ++n) {
    const ProjectedImage image{a, n, weights, sources, sources + packed};
    parallel_for(a.threads, a.rows, [&](int64_t row) { FP_DISPATCH(projected_pack)(image, row); });
    parallel_for(a.threads, (a.queries + kProjectedQueries - 1) / kProjectedQueries, [&](int64_t k) {
      const int64_t first = k * kProjectedQueries;
      FP_DISPATCH(projected_queries)(image, first, std::min(first + kProjectedQueries, a.queries));
    });
  }
}

void read_by_keys(const ProjectedRead& a) {
  const Scratch keys(a.keys * a.width);
  for (int64_t n = 0; n < a.images; ++n) {
    const float* source = a.source + n * a.keys * a.depth;
    const Matrix linear{a.weight, a.width, a.depth, a.bias, nullptr, nullptr};
    normalised_linear({a.keys, source, {}, linear, keys.data()}, a.precision, a.threads);
    MemoryRead read{};
    read.images = read.heads = 1, read.queries = a.queries, read.keys = a.keys, read.width = a.width;
    read.depth = a.depth, read.query = a.query + n * a.queries * a.width, read.key = keys.data();
    read.value = a.value + n * a.keys * a.depth, read.cos = a.cos, read.sin = a.sin, read.key_cos = a.key_cos;
    read.key_sin = a.key_sin, read.positions = a.rows * a.columns, read.unturned = a.unturned, read.scale = a.scale;
    read.out = a.out + n * a.queries * a.depth, read.precision = a.precision, read.threads = a.threads;
    memory_read(read);
  }
}

}  // namespace

void projected_read(const ProjectedRead& a) {
  const bool tables = !bf16(a.precision) && tables_pay(a) && axial(a.key_cos, a) && axial(a.key_sin, a);
  tables ? read_by_tables(a) : read_by_keys(a);
}

}  // namespace fastprompt
