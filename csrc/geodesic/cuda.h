// Geodesic distance on a GPU, bit-equal to the CPU's raster and exact methods.
#pragma once
#include <cstdint>

#include "geodesic/geodesic.h"

namespace fastprompt {

// All arrays are contiguous and on the current device.
struct GeodesicCuda {
  const float* image;      // (batch, channels, nz, ny, nx)
  const float* start;      // (batch, sets, nz, ny, nx); (batch, sets / 2, nz, ny, nx) if two_sided
  const uint8_t* barrier;  // (batch, nz, ny, nx), or nullptr: pixels that no path may enter
  float* out;              // (batch, sets, nz, ny, nx)
  int* workspace;          // geodesic_*_cuda_workspace() of them, 16-byte aligned, whatever they hold
  int batch, channels, sets, nz, ny, nx;
  bool volume;  // 26 neighbours and three axes; else 8 and nz = 1
  Metric metric;
  Start start_kind;
  bool two_sided;     // set 2 k starts from map k, set 2 k + 1 from its complement 1 - map
  int iterations;     // of raster; exact ignores it
  float grad_weight;  // lambda
  float step_weight;  // 1 - lambda
  float spacing[3];   // z, y, x
  float v;            // start value away from the seeds, may be +inf
  float limit;        // distances above become +inf; +inf: none
};

int64_t geodesic_raster_cuda_workspace(const GeodesicCuda& args);  // ints
int64_t geodesic_exact_cuda_workspace(const GeodesicCuda& args);

// One memset and one cooperative launch on `stream` (a cudaStream_t), whatever the size and the iterations; raster of
// pictures: one launch, and for every iteration four cooperative ones and two others. Does not wait for them and
// allocates nothing. Throws std::runtime_error where CUDA reports an error.
void geodesic_raster_cuda(const GeodesicCuda& args, void* stream);
void geodesic_exact_cuda(const GeodesicCuda& args, void* stream);

// Gradient of sum(grad * D) for the exact method, by the forest of geodesic_distance_backward; sums in another order.
struct GeodesicGradientCuda {
  GeodesicCuda forward;  // out: the distances that geodesic_exact_cuda gives; workspace: of this function
  const float* grad;     // dL/dD (batch, sets, nz, ny, nx); (batch, sets / 2, …) if two_sided, of one minus the other
  float* grad_image;     // dL/dI (batch, channels, nz, ny, nx)
  float* grad_start;     // dL/dstart (batch, sets, nz, ny, nx)
};

int64_t geodesic_gradient_cuda_workspace(const GeodesicCuda& args);

// One memset and one cooperative launch.
void geodesic_gradient_cuda(const GeodesicGradientCuda& args, void* stream);

}  // namespace fastprompt
