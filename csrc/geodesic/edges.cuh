// What an edge costs and where a path starts, with the operations of metric.h and block.h in their order: results are
// promised bit for bit, so this is compiled with -fmad=false.
#pragma once
#include <type_traits>

#include "geodesic/cuda.h"

namespace fastprompt {

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
__device__ inline float nan() { return __int_as_float(0x7fffffff); }

// What an edge of a length adds whatever the image is (or, for the other metrics, what it multiplies).
template <Metric M>
__device__ float edge_step(const GeodesicCuda& a, float squared_length) {
  return (M == Metric::fastgeodis ? a.step_weight : 1.f) * sqrtf(squared_length);
}

// A barrier has no value in the first channel: no edge leads to it or from it.
__device__ inline float image_value(const float* channel, const uint8_t* barrier, int64_t p) {
  return barrier && barrier[p] ? nan() : __ldg(channel + p);
}

// The cost of an edge: the sum of edge_term over the channels, first channel first, then edge_cost of it, which is all
// that does not depend on the distance.
template <Metric M>
__device__ float edge_term(float difference) {
  return M == Metric::fastgeodis ? fabsf(difference) : difference * difference;
}

template <Metric M>
__device__ float edge_cost(const GeodesicCuda& a, float sum, float step) {
  if (M == Metric::fastgeodis) return a.grad_weight * sum;
  if (M == Metric::geodistk_fm) return step * sqrtf(sum);
  const double lambda = a.grad_weight;
  return step / static_cast<float>((1.0 - lambda) + lambda / (static_cast<double>(sqrtf(sum)) + 1e-5));
}

// The distance through a neighbour at `from` is what it is a step away plus the edge's cost.
template <Metric M>
__device__ float step_away(float from, float step) {
  return M == Metric::fastgeodis ? from + step : from;
}

// min(value, the distance through a neighbour at `from`), as the CPU takes it: a NaN candidate loses.
template <Metric M>
__device__ float relax(float value, float from, float step, float cost) {
  const float reached = step_away<M>(from, step) + cost;
  return reached < value ? reached : value;
}

__device__ inline float start_value(const GeodesicCuda& a, int b, int set, int64_t p) {
  const int64_t pixels = int64_t(a.nz) * a.ny * a.nx;
  if (a.barrier && a.barrier[b * pixels + p]) return infinity();
  const int maps = a.two_sided ? a.sets / 2 : a.sets;
  const float s = a.start[(int64_t(b) * maps + (a.two_sided ? set / 2 : set)) * pixels + p];
  const bool complement = a.two_sided && set % 2;
  if (a.start_kind == Start::nonzero) return (s != 0.f) != complement ? 0.f : a.v;
  if ((a.start_kind == Start::cost) != complement) return s == 0.f ? 0.f : a.v * s;  // v may be +inf
  return s == 1.f ? 0.f : a.v * (1.f - s);
}

// launch(metric, volume) for those of a call, as constants: its kernel is one of six.
template <class Launch>
void with_metric_and_grid(const GeodesicCuda& a, const Launch& launch) {
  if (int64_t(a.batch) * a.sets * a.nz * a.ny * a.nx == 0) return;
  const auto on_grid = [&](auto metric) {
    a.volume ? launch(metric, std::true_type{}) : launch(metric, std::false_type{});
  };
  if (a.metric == Metric::fastgeodis) return on_grid(std::integral_constant<Metric, Metric::fastgeodis>{});
  if (a.metric == Metric::geodistk) return on_grid(std::integral_constant<Metric, Metric::geodistk>{});
  on_grid(std::integral_constant<Metric, Metric::geodistk_fm>{});
}

}  // namespace fastprompt
