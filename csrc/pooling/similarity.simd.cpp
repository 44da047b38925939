#include "pooling/similarity.h"

#include "common/gemm.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int64_t kTile = kSimilarityTile;

// ---------------------------------------------------------------- few rows: the features stream by

constexpr int64_t kPart = 1024;  // pixels whose sums stay in the L1 cache, at most

// sums (P, kPart) += products of C channels with P rows; `squares`, unless null, += their squares.
// NOTE: a column of the features at a time instead, as registers would have it, reads 64 bytes of a page: half as fast.
template <int P, int C>
void add_channels(const float* x, int64_t row, int64_t count, const float* unit, int64_t width, float* sums,
                  float* squares) {
  vf factor[P][C];
  for (int p = 0; p < P; ++p)
    for (int c = 0; c < C; ++c) factor[p][c] = broadcast(unit[p * width + c]);
  for (int64_t n = 0; n < count; n += N) {
    vf dot[P], square = broadcast(0.f);
    for (int p = 0; p < P; ++p) dot[p] = broadcast(0.f);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      float some[N] = {};
      const float* at = x + c * row + n;
      if (n + N > count)
        for (int64_t k = n; k < count; ++k) some[k - n] = x[c * row + k];
      const vf value = loadu(n + N > count ? some : at);
      square = fma(value, value, square);
      for (int p = 0; p < P; ++p) dot[p] = fma(value, factor[p][c], dot[p]);
    }
    for (int p = 0; p < P; ++p) store(sums + p * kPart + n, load(sums + p * kPart + n) + dot[p]);
    if (squares) store(squares + n, load(squares + n) + square);
  }
}

template <int P>
void stream_rows(const Similarity& a, const float* unit, int64_t width, const float* x, int64_t count, float* sums,
                 float* squares) {
  constexpr int C = N == 16 ? (P > 2 ? 4 : 8) : (P > 2 ? 2 : 4);  // P x C factors in registers
  int64_t c = 0;
  for (; c + C <= a.channels; c += C)
    add_channels<P, C>(x + c * a.pixels, a.pixels, count, unit + c, width, sums, squares);
  for (; c < a.channels; ++c) add_channels<P, 1>(x + c * a.pixels, a.pixels, count, unit + c, width, sums, squares);
}

// scale / max(|x|, eps); a NaN stays one.
inline vf factor_of(vf squares, float scale, float eps) {
  return broadcast(scale) / max(broadcast(eps), sqrt(squares));
}

// ---------------------------------------------------------------- many rows: products of tiles

// The pixels [first, last) as slabs of `slab` columns, (channels, slab) each; zeros behind the last.
void pack_tile(const Similarity& a, int64_t image, int64_t first, int64_t last, int64_t slab, float* slabs,
               float* squares) {
  const float* x = a.features + image * a.channels * a.pixels + first;
  for (int64_t n = 0; n < kTile; ++n) squares[n] = 0;
  for (int64_t c = 0; c < a.channels; ++c, x += a.pixels)
    for (int64_t n = 0; n < kTile; n += N) {
      float some[N] = {};
      if (first + n + N > last)
        for (int64_t k = n; k < last - first; ++k) some[k - n] = x[k];
      const vf value = loadu(first + n + N > last ? some : x + n);
      storeu(slabs + n / slab * slab * a.channels + c * slab + n % slab, value);
      storeu(squares + n, fma(value, value, loadu(squares + n)));
    }
}

// out (rows x kTile) = scale times the cosines
void products(const Similarity& a, const SimilarityRows& rows, int64_t image, int64_t first, int64_t last, float scale,
              float* out) {
  Scratch memory(rows.width * kTile * 3 / 2 + 64);
  float *tile = memory.data(), *squares = tile + rows.width * kTile;
  if (rows.engine) {
    uint16_t* right = reinterpret_cast<uint16_t*>(squares + kTile);
    pack_tile(a, image, first, last, kTile, tile, squares);
    rows.engine->pack_right(tile, kTile, a.channels, rows.width, right, nullptr);
    const int64_t padded = (a.rows + kBf16Rows - 1) / kBf16Rows * kBf16Rows;
    rows.engine->multiply({rows.bf16, right, out, in_rows(rows.width), kTile, padded, rows.width, false});
  } else {
    pack_tile(a, image, first, last, 2 * N, tile, squares);
    for (int64_t n = 0; n < kTile; n += 2 * N)
      gemm<false>({rows.unit, rows.width, 1}, tile + n * a.channels, 2 * N, out + n, kTile, a.rows, 2, a.channels);
  }
  for (int64_t n = 0; n < kTile; n += N) {
    const vf factor = factor_of(loadu(squares + n), scale, a.eps);
    for (int64_t r = 0; r < a.rows; ++r) {
      float* at = out + r * kTile + n;
      storeu(at, rows.penalty && rows.penalty[r] != 0 ? broadcast(rows.penalty[r]) : loadu(at) * factor);
    }
  }
}

void softmax(int64_t rows, float* x) {
  for (int64_t n = 0; n < kTile; n += N) {
    vf peak = loadu(x + n), total = broadcast(0.f);
    for (int64_t r = 1; r < rows; ++r) peak = max(loadu(x + r * kTile + n), peak);
    for (int64_t r = 0; r < rows; ++r) {
      const vf logit = loadu(x + r * kTile + n) - peak, weight = exp(logit);
      storeu(x + r * kTile + n, weight);
      total = total + weight;
      // NOTE: exp takes a NaN for a number; a pixel without a length has none.
      total = total + (logit - logit);
    }
    const vf share = broadcast(1.f) / total;
    for (int64_t r = 0; r < rows; ++r) storeu(x + r * kTile + n, loadu(x + r * kTile + n) * share);
  }
}

}  // namespace

void similarity_unit(const Similarity& a, int64_t image, int64_t padded, int64_t width, float* out) {
  for (int64_t r = 0; r < padded; ++r, out += width) {
    const float* from = a.row + (image * a.rows + r) * a.channels;
    double squares = 0;
    for (int64_t c = 0; r < a.rows && c < a.channels; ++c) squares += double(from[c]) * from[c];
    float length = static_cast<float>(__builtin_sqrt(squares));
    length = length < a.eps ? a.eps : length;
    for (int64_t c = 0; c < width; ++c) out[c] = r < a.rows && c < a.channels ? from[c] / length : 0.f;
  }
}

void similarity_stream(const Similarity& a, const SimilarityRows& rows, int64_t image, int64_t first, int64_t last) {
  const float* x = a.features + image * a.channels * a.pixels + first;
  const int64_t count = last - first;
  Scratch memory(5 * kPart);
  float *squares = memory.data(), *sums = squares + kPart;
  for (int64_t p = 0; p < a.rows; p += 4) {
    const int64_t some = a.rows - p < 4 ? a.rows - p : 4;
    const float* unit = rows.unit + p * rows.width;
    for (int64_t n = p == 0 ? 0 : kPart; n < 5 * kPart; ++n) squares[n] = 0;
    float* also = p == 0 ? squares : nullptr;
    if (some == 1) stream_rows<1>(a, unit, rows.width, x, count, sums, also);
    if (some == 2) stream_rows<2>(a, unit, rows.width, x, count, sums, also);
    if (some == 3) stream_rows<3>(a, unit, rows.width, x, count, sums, also);
    if (some == 4) stream_rows<4>(a, unit, rows.width, x, count, sums, also);
    for (int64_t k = 0; k < some; ++k) {
      float* out = a.out + (image * a.rows + p + k) * a.pixels + first;
      for (int64_t n = 0; n < count; n += N) {
        const vf value = load(sums + k * kPart + n) * factor_of(load(squares + n), a.scale, a.eps);
        store(sums + k * kPart + n, value);
      }
      for (int64_t n = 0; n < count; ++n) out[n] = sums[k * kPart + n];
    }
  }
}

void similarity_tile(const Similarity& a, const SimilarityRows& rows, int64_t image, int64_t first, int64_t last,
                     float* confidence) {
  const int64_t padded = (a.rows + kBf16Rows - 1) / kBf16Rows * kBf16Rows, count = last - first;
  Scratch memory(padded * kTile);
  float* x = memory.data();
  const bool shares = confidence || a.kind == SimilarityOutput::softmax;
  products(a, rows, image, first, last, shares ? a.temperature : a.scale, x);
  if (shares) softmax(a.rows, x);
  for (int64_t r = 0; confidence && r < a.rows; ++r) {
    confidence[r] = 0;
    for (int64_t n = 0; n < count; ++n)
      if (x[r * kTile + n] > confidence[r]) confidence[r] = x[r * kTile + n];
  }
  if (confidence) return;
  if (a.kind != SimilarityOutput::argmax) {
    for (int64_t r = 0; r < a.rows; ++r) {
      float* out = a.out + (image * a.rows + r) * a.pixels + first;
      for (int64_t n = 0; n < count; ++n) out[n] = x[r * kTile + n];
    }
    return;
  }
  int64_t* index = a.index + image * a.pixels + first;
  for (int64_t n = 0; n < count; ++n) index[n] = 0;
  for (int64_t r = 1; r < a.rows; ++r)
    for (int64_t n = 0; n < count; ++n)
      if (x[r * kTile + n] > x[index[n] * kTile + n]) index[n] = r;
}

}  // namespace FP_ISA
}  // namespace fastprompt
