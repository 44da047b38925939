// The inner loop of every solver: one row of pixels takes what the three nearest pixels of R other rows offer.
#pragma once
#include "geodesic/metric.h"

namespace fastprompt {
namespace FP_ISA {

struct Row {
  float* d;        // distance of seed set 0, aligned
  const float* i;  // image channel 0, aligned
};

struct Planes {
  int channels;
  ptrdiff_t channel, set;  // floats from one channel (one seed set) to the next
  int vectors;             // of N pixels in a row
};

// d[x] = min(d[x], reach through (r, x + k)) for the R rows `from`, k = -1, 0, 1, and K seed sets that share the costs.
// step[3 r + k + 1] = metric.step(length); NaN: no such edge. The vectors before and after a row are +inf in d and NaN
// in i, or hold the neighbouring pixels. C = channels, or 0: any number.
// Returns which pixels improved (bit x, rows of at most 64 pixels) if Track, else 0.
template <class M, int C, int R, int K, bool Track>
static inline uint64_t relax_row(const M& metric, const Planes& planes, Row to, const Row* from, const float* step) {
  constexpr int kNamed = C > 0 ? C : 1;
  constexpr bool kRolling = C > 0 && R * (C + K) <= (N == 16 ? 9 : 3);  // more does not fit the registers
  Walk<kRolling> image[R][kNamed], distance[R][K];
  vf steps[3 * R];
  for (int e = 0; e < 3 * R; ++e) steps[e] = broadcast(step[e]);
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < kNamed; ++c) image[r][c].begin(from[r].i + c * planes.channel);
    for (int k = 0; k < K; ++k) distance[r][k].begin(from[r].d + k * planes.set);
  }
  const int channels = C > 0 ? C : planes.channels;
  uint64_t improved = 0;
  for (int v = 0; v < planes.vectors; ++v) {
    const ptrdiff_t x = ptrdiff_t(v) * N;
    vf before[K], value[K];
    for (int k = 0; k < K; ++k) before[k] = value[k] = load(to.d + k * planes.set + x);
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      Taps sum{};
#pragma GCC unroll 3
      for (int c = 0; c < channels; ++c) {
        const vf here = load(to.i + c * planes.channel + x);
        const float* row = from[r].i + c * planes.channel + x;
        const Taps other = image[r][C > 0 ? c : 0].at(row);
        if (c == 0) {
          sum = {M::first(here - other.left), M::first(here - other.centre), M::first(here - other.right)};
        } else {
          sum.left = M::add(sum.left, here - other.left);
          sum.centre = M::add(sum.centre, here - other.centre);
          sum.right = M::add(sum.right, here - other.right);
        }
      }
#pragma GCC unroll 2
      for (int k = 0; k < K; ++k) {
        const Taps d = distance[r][k].at(from[r].d + k * planes.set + x);
        value[k] = min(metric.reach(d.left, steps[3 * r], sum.left), value[k]);
        value[k] = min(metric.reach(d.centre, steps[3 * r + 1], sum.centre), value[k]);
        value[k] = min(metric.reach(d.right, steps[3 * r + 2], sum.right), value[k]);
      }
    }
    if (Track) improved |= less_mask(value[0], before[0]) << (v * N);
    for (int k = 0; k < K; ++k) store(to.d + k * planes.set + x, value[k]);
  }
  return improved;
}

}  // namespace FP_ISA
}  // namespace fastprompt
