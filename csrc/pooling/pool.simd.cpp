#include "pooling/pool.h"

#include "common/math.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

// A mask of ones has no memory.
struct Ones {
  char nothing;
};

inline vf read(const float* x) { return loadu(x); }
inline vf read(const Ones*) { return broadcast(1.f); }
inline vf read(const uint8_t* x) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))));
#else
  float y[N];
  for (int k = 0; k < N; ++k) y[k] = x[k];
  return loadu(y);
#endif
}

inline float one(const float* x) { return *x; }
inline float one(const uint8_t* x) { return *x; }
inline float one(const Ones*) { return 1.f; }

// The first `count` < N numbers, zeros behind them.
template <class T>
vf read_some(const T* x, int64_t count) {
  float y[N] = {};
  for (int64_t k = 0; k < count; ++k) y[k] = one(x + k);
  return loadu(y);
}

// lower += sum of low[r] row r, upper += sum of high[r] row r: what R mask rows give to the two feature rows around
// them.
template <int R, class T>
void add_rows(const T* mask, int64_t width, const float* low, const float* high, float* lower, float* upper) {
  for (int64_t x = 0; x < width; x += N) {
    vf a = load(lower + x), b = load(upper + x);
    for (int r = 0; r < R; ++r) {
      const T* at = mask + r * width + x;
      const vf m = x + N <= width ? read(at) : read_some(at, width - x);
      a = fma(m, broadcast(low[r]), a), b = fma(m, broadcast(high[r]), b);
    }
    store(lower + x, a), store(upper + x, b);
  }
}

// Feature row by feature row: the mask rows that lie behind it are read once, for it and for the next.
template <class T>
void splat(const PoolCall& call, const T* mask, int64_t first, int64_t last, float* weights) {
  const MaskedPool& a = call.args;
  const int64_t padded = (a.mask_width + kPoolUnit - 1) / kPoolUnit * kPoolUnit;
  Scratch memory(2 * padded);
  float *lower = memory.data(), *upper = lower + padded;
  for (int64_t x = 0; x < 2 * padded; ++x) lower[x] = 0;
  for (int64_t f = first > 0 ? first - 1 : 0; f < last; ++f) {
    int64_t y = call.row_begin[f];
    const int64_t end = call.row_begin[f + 1];
    const float *low = call.rows.low, *high = call.rows.high;
    for (; y + 4 <= end; y += 4) add_rows<4>(mask + y * a.mask_width, a.mask_width, low + y, high + y, lower, upper);
    for (; y < end; ++y) add_rows<1>(mask + y * a.mask_width, a.mask_width, low + y, high + y, lower, upper);
    for (int64_t c = 0; f >= first && c < a.width; ++c) {
      const float *hat = call.hats.weight + c * call.hats.step, *from = lower + call.hats.first[c];
      vf total = broadcast(0.f);
      for (int64_t k = 0; k < call.hats.count[c]; k += N) total = fma(loadu(hat + k), loadu(from + k), total);
      weights[f * a.width + c] = sum(total);
    }
    float* done = lower;
    lower = upper, upper = done;
    for (int64_t x = 0; x < padded; ++x) upper[x] = 0;
  }
}

template <class T>
void sample(const PoolCall& call, const T* mask, int64_t first, int64_t last, float* weights) {
  const MaskedPool& a = call.args;
  for (int64_t f = first; f < last; ++f) {
    const float low = call.rows.low[f], high = call.rows.high[f];
    const T *row = mask + call.rows.at[f] * a.mask_width, *next = high != 0 ? row + a.mask_width : row;
    for (int64_t c = 0; c < a.width; ++c) {
      const int64_t x = call.columns.at[c], right = call.columns.high[c] != 0 ? x + 1 : x;
      const float left_part = call.columns.low[c], right_part = call.columns.high[c];
      weights[f * a.width + c] = low * (left_part * one(row + x) + right_part * one(row + right)) +
                                 high * (left_part * one(next + x) + right_part * one(next + right));
    }
  }
}

template <class T>
void weigh(const PoolCall& call, const T* mask, int64_t first, int64_t last, float* weights) {
  call.args.resize == PoolResize::mask ? sample(call, mask, first, last, weights)
                                       : splat(call, mask, first, last, weights);
}

// acc[m][c] = sum over the live vectors of weight m times feature c.
template <int M, int C>
void dot_block(const PoolGroup& group, const float* features, int64_t pixels, float* out, int64_t out_row) {
  vf total[M][C];
  for (int m = 0; m < M; ++m)
    for (int c = 0; c < C; ++c) total[m][c] = broadcast(0.f);
  const bool ragged = group.count > 0 && group.live[group.count - 1] + N > pixels;
  const float* weight = group.weight;
  for (int64_t v = 0; v < group.count; ++v, weight += M * N) {
    const float* at = features + group.live[v];
    vf x[C];
    if (ragged && v + 1 == group.count)
      for (int c = 0; c < C; ++c) x[c] = read_some(at + c * pixels, pixels - group.live[v]);
    else
      for (int c = 0; c < C; ++c) x[c] = loadu(at + c * pixels);
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
      const vf w = loadu(weight + m * N);
      for (int c = 0; c < C; ++c) total[m][c] = fma(w, x[c], total[m][c]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int c = 0; c < C; ++c) out[m * out_row + c] = sum(total[m][c]);
}

// 0 times NaN is NaN, and which pixels share a vector with the mask is nobody's business: pixels of weight 0 are out.
float careful(const PoolGroup& group, int64_t rows, int64_t row, const float* feature) {
  float total = 0;
  for (int64_t v = 0; v < group.count; ++v)
    for (int k = 0; k < N; ++k) {
      const float weight = group.weight[(v * rows + row) * N + k];
      if (weight != 0.f) total += weight * feature[group.live[v] + k];
    }
  return total;
}

template <int M>
void channels_of(const PoolCall& call, const PoolGroup& group, const float* features, int64_t first, int64_t last,
                 float* out) {
  constexpr int C = N == 16 ? (M > 2 ? 4 : 8) : (M > 2 ? 2 : 4);  // M x C sums: 24 of 32 registers, 12 of 16
  const MaskedPool& a = call.args;
  const int64_t pixels = a.height * a.width;
  int64_t c = first;
  for (; c + C <= last; c += C) dot_block<M, C>(group, features + c * pixels, pixels, out + c, a.channels);
  for (; c < last; ++c) dot_block<M, 1>(group, features + c * pixels, pixels, out + c, a.channels);
  for (int64_t m = 0; m < M; ++m) {
    const float area = group.area[m];
    for (c = first; c < last; ++c) {
      float* to = out + m * a.channels + c;
      if (!(__builtin_fabsf(*to) < __builtin_inff())) *to = careful(group, M, m, features + c * pixels);
      *to = area == 0 ? a.empty : *to / (area + a.eps);
    }
  }
}

}  // namespace

void pool_weights(const PoolCall& call, int64_t mask, int64_t first, int64_t last, float* weights) {
  const MaskedPool& a = call.args;
  const int64_t at = mask * a.mask_height * a.mask_width;
  static const Ones ones{};
  if (mask < 0) return weigh(call, &ones, first, last, weights);
  a.bytes ? weigh(call, static_cast<const uint8_t*>(a.mask) + at, first, last, weights)
          : weigh(call, static_cast<const float*>(a.mask) + at, first, last, weights);
}

void pool_group(const PoolCall& call, const float* weights, int64_t rows, PoolGroup* group) {
  double area[kPoolGroup] = {};
  float* to = group->weight;
  for (int64_t n = 0; n < call.pitch; n += N) {
    bool any = false;
    for (int64_t m = 0; m < rows; ++m) {
      const vf x = loadu(weights + m * call.pitch + n);
      storeu(to + m * N, x);
      const bool some = less_mask(broadcast(0.f), abs(x)) != 0 || sum(x) != sum(x);
      any |= some;
      if (some) area[m] += sum(x);
    }
    if (!any) continue;
    group->live[group->count++] = static_cast<int32_t>(n);
    to += rows * N;
  }
  for (int64_t m = 0; m < rows; ++m) group->area[m] = static_cast<float>(area[m]);
}

void pool_channels(const PoolCall& call, const PoolGroup& group, int64_t rows, const float* features, int64_t first,
                   int64_t last, float* out) {
  if (rows == 1) channels_of<1>(call, group, features, first, last, out);
  if (rows == 2) channels_of<2>(call, group, features, first, last, out);
  if (rows == 3) channels_of<3>(call, group, features, first, last, out);
  if (rows == 4) channels_of<4>(call, group, features, first, last, out);
  if (rows == 5) channels_of<5>(call, group, features, first, last, out);
  if (rows == 6) channels_of<6>(call, group, features, first, last, out);
}

}  // namespace FP_ISA
}  // namespace fastprompt
