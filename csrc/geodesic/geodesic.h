// Geodesic distance on the 8- or 26-neighbour grid graph.
//   D(p) = min over paths from p to q of  start(q) + sum of cost(edge)
#pragma once
#include <cstdint>

#include "common/isa.h"
#include "common/view.h"

namespace fastprompt {

enum class Metric : int { fastgeodis = 0, geodistk = 1, geodistk_fm = 2 };
enum class Method : int { raster = 0, toivanen = 1, exact = 2 };
enum class Start : int {
  cost = 0,    // start = v * map               (FastGeodis' soft mask: 0 = seed)
  seed = 1,    // start = v * (1 - map)         (1 = seed)
  nonzero = 2  // start = 0 where map != 0, else v
};

struct Geodesic {
  View image;    // (batch, channels, nz, ny, nx)
  View start;    // (batch, sets, nz, ny, nx); (batch, sets / 2, nz, ny, nx) if two_sided
  View barrier;  // (batch, 1, nz, ny, nx) uint8, or data = nullptr: pixels that no path may enter
  float* out;    // (batch, sets, nz, ny, nx), contiguous
  int64_t batch, channels, sets, nz, ny, nx;
  bool volume;  // 26 neighbours and three axes; else 8 and nz = 1
  Metric metric;
  Method method;
  Start start_kind;
  bool two_sided;     // set 2 k starts from map k, set 2 k + 1 from its complement 1 - map
  int iterations;     // of raster and toivanen; exact ignores it
  float grad_weight;  // lambda
  float step_weight;  // 1 - lambda
  float spacing[3];   // z, y, x
  float v;            // start value away from the seeds, may be +inf
  float limit;        // distances above become +inf; +inf: none
  int threads;
};

void geodesic_distance(const Geodesic& args);
// out (batch, sets, …) = distance to map k - distance to its complement; +inf where neither is reached.
void signed_geodesic_distance(const Geodesic& args);

// Gradient of sum(grad * D) along the tree of shortest paths (exact method only).
struct GeodesicGradient {
  Geodesic forward;   // out is not used
  const float* grad;  // dL/dD (batch, sets, nz, ny, nx), contiguous, as the next two
  float* grad_image;  // dL/dI (batch, channels, nz, ny, nx)
  float* grad_start;  // dL/dstart (batch, sets, nz, ny, nx); (batch, 2 sets, …) if two_sided
};

void geodesic_distance_backward(const GeodesicGradient& args);

// The solvers, for image b and the seed sets [set, set + count).
void exact_distance(const Geodesic& args, int64_t b, int64_t set, int threads);
FP_DECLARE_ISA(void, geodesic_raster,
               (const Geodesic& args, int64_t b, int64_t set, int count, int threads))  // count 1, 2
// Start distances of a seed set (nz, ny, nx), and the image (channels, nz, ny, nx), as float32; barriers +inf and NaN.
FP_DECLARE_ISA(void, start_distances, (const Geodesic& args, int64_t b, int64_t set, float* d))
FP_DECLARE_ISA(void, plain_image, (const Geodesic& args, int64_t b, float* image))
FP_DECLARE_ISA(void, geodesic_toivanen, (const Geodesic& args, int64_t b, int64_t set))

}  // namespace fastprompt
