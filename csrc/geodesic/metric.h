// The three edge costs in use. first() and add() gather the channels, reach() is the distance through one neighbour.
#pragma once
#include "common/simd.h"
#include "geodesic/geodesic.h"

namespace fastprompt {
namespace FP_ISA {

// (from + step) + lambda * sum_c |dI_c|, associated exactly so: bit-equality with FastGeodis depends on it.
struct FastGeodis {
  static constexpr Metric kind = Metric::fastgeodis;
  vf grad_weight;
  float step_weight;
  explicit FastGeodis(const Geodesic& a) : grad_weight(broadcast(a.grad_weight)), step_weight(a.step_weight) {}
  float step(float length) const { return step_weight * length; }
  static vf first(vf difference) { return abs(difference); }
  static vf add(vf sum, vf difference) { return sum + abs(difference); }
  vf reach(vf from, vf step, vf sum) const { return (from + step) + grad_weight * sum; }
};

// from + step * ||dI||_2
struct GeodisTkFm {
  static constexpr Metric kind = Metric::geodistk_fm;
  explicit GeodisTkFm(const Geodesic&) {}
  float step(float length) const { return length; }
  static vf first(vf difference) { return difference * difference; }
  static vf add(vf sum, vf difference) { return sum + difference * difference; }
  vf reach(vf from, vf step, vf sum) const { return from + step * sqrt(sum); }
};

// from + step / ((1 - lambda) + lambda / (||dI||_2 + 1e-5)); the speed in double, as GeodisTK computes it
struct GeodisTkRaster {
  static constexpr Metric kind = Metric::geodistk;
  double lambda;
  explicit GeodisTkRaster(const Geodesic& a) : lambda(a.grad_weight) {}
  float step(float length) const { return length; }
  static vf first(vf difference) { return difference * difference; }
  static vf add(vf sum, vf difference) { return sum + difference * difference; }
  vf reach(vf from, vf step, vf sum) const {
    const vf norm = sqrt(sum);
    vf speed;
    for (int i = 0; i < N; ++i) speed[i] = static_cast<float>((1.0 - lambda) + lambda / (norm[i] + 1e-5));
    return from + step / speed;
  }
};

}  // namespace FP_ISA
}  // namespace fastprompt
