// The rules of the numbers that distances are made of, for every door: Python's, the nodes', the plugins'.
#pragma once
#include <limits>

#include "common/sizes.h"

namespace fastprompt {

constexpr int kMostIterations = 10000;  // far more than a distance needs to settle

inline void check_spacing(double x) {
  need(x > 0 && x <= std::numeric_limits<double>::max(), "spacing must be positive and finite");
}

// The numbers that the end of a call depends on, of a Geodesic or a GeodesicCuda: costs below 0 would fall for ever.
// Every call begins with it.
template <class Call>
void check_numbers(const Call& a) {
  need(a.iterations >= 0 && a.iterations <= kMostIterations, "iterations must be between 0 and 10000");
  need(a.grad_weight >= 0 && a.grad_weight <= 1, "lam must be between 0 and 1");
  need(a.step_weight >= 0 && a.step_weight <= 1, "step_weight must be between 0 and 1");
  for (const float s : a.spacing) check_spacing(s);
  need(a.v >= 0, "v must not be negative");
  need(a.limit >= 0, "limit must not be negative");
}

}  // namespace fastprompt
