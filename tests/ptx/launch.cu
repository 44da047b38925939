// The launchers of csrc/geodesic/cuda_*.cu for ctypes; there is no memory behind the addresses.
#include <cuda_runtime.h>

#include <cstdio>
#include <exception>

#include "geodesic/cuda.h"

using namespace fastprompt;

static GeodesicCuda problem(int batch, int ny, int nx) {
  GeodesicCuda a{};
  a.batch = batch, a.channels = a.sets = 1, a.ny = ny, a.nx = nx, a.iterations = 1;
  a.spacing[0] = a.spacing[1] = 1;
  return a;
}

extern "C" int devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

extern "C" int64_t workspace(int method, int batch, int ny, int nx) {
  const GeodesicCuda a = problem(batch, ny, nx);
  return method ? geodesic_exact_cuda_workspace(a) : geodesic_raster_cuda_workspace(a);
}

extern "C" int launch(int method, int batch, int ny, int nx, char* text, int size) {
  try {
    method ? geodesic_exact_cuda(problem(batch, ny, nx), nullptr) : geodesic_raster_cuda(problem(batch, ny, nx), nullptr);
  } catch (const std::exception& error) {
    return std::snprintf(text, size, "%s", error.what());
  }
  return 0;
}
