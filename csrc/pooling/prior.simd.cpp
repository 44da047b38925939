#include "pooling/prior.h"

#include "common/gemm.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int64_t kColumns = kBf16Columns, kDepth = kPriorDepth;
constexpr int64_t kSlab = N == 16 ? 4 * N : 2 * N;  // columns of a block of registers: see common/gemm.h

// Channel c of the N pixels that follow `first` in the list, times their mask.
vf gather(const PriorMask& a, const PriorSupport& s, int64_t pair, int64_t first, int64_t channel) {
  const float* row = a.support + (pair * a.channels + channel) * a.support_pixels;
  const float* mask = a.mask + pair * a.support_pixels;
  if (first + N <= s.count && s.pixel[first + N - 1] - s.pixel[first] == N - 1)
    return loadu(row + s.pixel[first]) * loadu(mask + s.pixel[first]);
  float x[N] = {};
  for (int64_t k = 0; k < N && first + k < s.count; ++k) {
    const int32_t pixel = s.pixel[first + k];
    x[k] = row[pixel] * mask[pixel];
  }
  return loadu(x);
}

int64_t channels_of(const PriorMask& a, int64_t block) {
  const int64_t left = a.channels - block * kDepth;
  return left < kDepth ? left : kDepth;
}

// tile = channels of a block as slabs of `slab` columns, (kDepth, slab) each; squares += theirs.
void load_query(const PriorMask& a, int64_t pair, int64_t block, int64_t first, int64_t last, int64_t slab, float* tile,
                float* squares) {
  const int64_t depth = channels_of(a, block);
  const float* x = a.query + (pair / a.shots * a.channels + block * kDepth) * a.query_pixels + first;
  for (int64_t c = 0; c < depth; ++c, x += a.query_pixels)
    for (int64_t n = 0; n < kPriorTile; n += N) {
      float some[N] = {};
      if (first + n + N > last)
        for (int64_t k = n; k < last - first; ++k) some[k - n] = x[k];
      const vf value = loadu(first + n + N > last ? some : x + n);
      storeu(tile + n / slab * slab * kDepth + c * slab + n % slab, value);
      storeu(squares + n, fma(value, value, loadu(squares + n)));
    }
}

template <bool Add>
void multiply(const PriorSupport& s, int64_t block, int64_t depth, const float* tile, float* sums) {
  const Left left{s.data + block * s.rows * kDepth, kDepth, 1};
  for (int64_t n = 0; n < kPriorTile; n += kSlab)
    gemm<Add>(left, tile + n * kDepth, kSlab, sums + n, kPriorTile, s.count, kSlab / N, depth);
}

}  // namespace

void prior_pack(const PriorMask& a, const PriorSupport& s, int64_t pair, int64_t first, int64_t last) {
  const int64_t blocks = prior_blocks(a);
  vf squares[kPriorTile / N];  // of at most kPackRows rows
  for (int64_t n = first; n < last; n += N) squares[(n - first) / N] = broadcast(0.f);
  for (int64_t b = 0; b < blocks; ++b) {
    float* data = s.data + b * s.rows * kDepth;
    const int64_t depth = channels_of(a, b);
    for (int64_t n = first; n < last; n += N) {
      for (int64_t c = 0; c < kDepth; c += N) {
        alignas(64) float turned[N * N] = {};
        for (int64_t k = 0; k < N && c + k < depth; ++k) {
          const vf x = gather(a, s, pair, n, b * kDepth + c + k);
          store(turned + k * N, x);
          squares[(n - first) / N] = fma(x, x, squares[(n - first) / N]);
        }
        transpose_tile(turned, N, data + n * kDepth + c, kDepth);
      }
    }
    if (s.engine)
      s.engine->pack_in_order(data + first * kDepth, (last - first) * kDepth, s.bf16 + (data - s.data) + first * kDepth,
                              nullptr);
  }
  for (int64_t n = first; n < last; n += N) storeu(s.length + n, sqrt(squares[(n - first) / N]));
}

void prior_tile(const PriorMask& a, const PriorSupport& s, int64_t pair, int64_t first, int64_t last) {
  Scratch memory((s.rows + kDepth + 1) * kPriorTile + kDepth * kColumns);
  float *sums = memory.data(), *tile = sums + s.rows * kPriorTile, *squares = tile + kDepth * kPriorTile;
  uint16_t* right = reinterpret_cast<uint16_t*>(squares + kPriorTile);
  for (int64_t n = 0; n < kPriorTile; ++n) squares[n] = 0;
  for (int64_t b = 0; b < prior_blocks(a); ++b) {
    const int64_t depth = channels_of(a, b), padded = (depth + kBf16Depth - 1) / kBf16Depth * kBf16Depth;
    load_query(a, pair, b, first, last, s.engine ? kColumns : kSlab, tile, squares);
    if (!s.engine) {
      b ? multiply<true>(s, b, depth, tile, sums) : multiply<false>(s, b, depth, tile, sums);
      continue;
    }
    for (int64_t n = 0; n < kPriorTile; n += kColumns) {
      s.engine->pack_right(tile + n * kDepth, kColumns, depth, padded, right, nullptr);
      s.engine->multiply({s.bf16 + b * s.rows * kDepth, right, sums + n, in_rows(kDepth), kPriorTile, s.rows, padded, b > 0});
    }
  }
  const vf eps = broadcast(a.eps);
  for (int64_t n = 0; n < kPriorTile; n += N) {
    // What the mask leaves out has the similarity 0.
    vf most = broadcast(s.count < a.support_pixels ? 0.f : -__builtin_inff());
    const vf length = sqrt(loadu(squares + n));
    for (int64_t r = 0; r < s.count; ++r)
      most = max(most, loadu(sums + r * kPriorTile + n) / fma(length, broadcast(s.length[r]), eps));
    for (int64_t k = n; k < n + N && first + k < last; ++k)
      a.out[pair * a.query_pixels + first + k] = length[k - n] < __builtin_inff() ? most[k - n] : __builtin_nanf("");
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
