// What an edge costs and where a path starts, with the operations of metric.h and block.h in their order: results are
// promised bit for bit, so this is compiled with -fmad=false.
#pragma once
#include <type_traits>

#include "geodesic/cuda.h"

namespace fastprompt {

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
__device__ inline float nan() { return __int_as_float(0x7fffffff); }

struct Steps {
  float y, x, diagonal;
};

template <Metric M>
__device__ Steps edge_steps(const GeodesicCuda& a) {
  const float y = a.spacing[1] * a.spacing[1], x = a.spacing[2] * a.spacing[2];
  const float weight = M == Metric::fastgeodis ? a.step_weight : 1.f;
  return {weight * sqrtf(y), weight * sqrtf(x), weight * sqrtf(y + x)};
}

// The image of one batch entry, read by pixel number.
struct Picture {
  const float* image;
  const uint8_t* barrier;
  int64_t pixels;
  int channels;

  __device__ Picture(const GeodesicCuda& a, int b)
      : image(a.image + int64_t(b) * a.channels * a.ny * a.nx),
        barrier(a.barrier ? a.barrier + int64_t(b) * a.ny * a.nx : nullptr),
        pixels(int64_t(a.ny) * a.nx),
        channels(a.channels) {}

  __device__ bool wall(int64_t p) const { return barrier && barrier[p]; }
};

// The part of an edge's cost that does not depend on the distance; NaN where a wall is, and a NaN never improves.
template <Metric M>
__device__ float edge_cost(const GeodesicCuda& a, const Picture& picture, int64_t p, int64_t q, float step) {
  if (picture.wall(p) || picture.wall(q)) return nan();
  float sum = 0.f;
#pragma unroll 1
  for (int c = 0; c < picture.channels; ++c) {
    const float* channel = picture.image + c * picture.pixels;
    const float difference = __ldg(channel + p) - __ldg(channel + q);
    const float term = M == Metric::fastgeodis ? fabsf(difference) : difference * difference;
    sum = c == 0 ? term : sum + term;
  }
  if (M == Metric::fastgeodis) return a.grad_weight * sum;
  if (M == Metric::geodistk_fm) return step * sqrtf(sum);
  const double lambda = a.grad_weight;
  return step / static_cast<float>((1.0 - lambda) + lambda / (static_cast<double>(sqrtf(sum)) + 1e-5));
}

// min(value, the distance through a neighbour at `from`), as the CPU takes it: a NaN candidate loses.
template <Metric M>
__device__ float relax(float value, float from, float step, float cost) {
  const float reached = M == Metric::fastgeodis ? (from + step) + cost : from + cost;
  return reached < value ? reached : value;
}

__device__ inline float start_value(const GeodesicCuda& a, int b, int set, int64_t p) {
  const int64_t pixels = int64_t(a.ny) * a.nx;
  if (a.barrier && a.barrier[b * pixels + p]) return infinity();
  const int maps = a.two_sided ? a.sets / 2 : a.sets;
  const float s = a.start[(int64_t(b) * maps + (a.two_sided ? set / 2 : set)) * pixels + p];
  const bool complement = a.two_sided && set % 2;
  if (a.start_kind == Start::nonzero) return (s != 0.f) != complement ? 0.f : a.v;
  if ((a.start_kind == Start::cost) != complement) return s == 0.f ? 0.f : a.v * s;  // v may be +inf
  return s == 1.f ? 0.f : a.v * (1.f - s);
}

// launch(metric) for the metric of a call, as a constant: its kernel is one of three.
template <class Launch>
void with_metric(const GeodesicCuda& a, const Launch& launch) {
  if (int64_t(a.batch) * a.sets * a.ny * a.nx == 0) return;
  if (a.metric == Metric::fastgeodis) return launch(std::integral_constant<Metric, Metric::fastgeodis>{});
  if (a.metric == Metric::geodistk) return launch(std::integral_constant<Metric, Metric::geodistk>{});
  launch(std::integral_constant<Metric, Metric::geodistk_fm>{});
}

}  // namespace fastprompt
