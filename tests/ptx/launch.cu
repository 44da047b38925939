// The launchers of csrc/geodesic/cuda_*.cu for ctypes.
#include <cuda_runtime.h>

#include <cstdio>
#include <exception>

#include "geodesic/cuda.h"

using namespace fastprompt;

extern "C" int64_t size_of_arguments() { return sizeof(GeodesicCuda); }

extern "C" int64_t workspace(const char* method, const GeodesicCuda* a) {
  return method[0] == 'e' ? geodesic_exact_cuda_workspace(*a) : geodesic_raster_cuda_workspace(*a);
}

// The length of the error's text, 0 for none.
extern "C" int launch(const char* method, const GeodesicCuda* a, void* stream, char* text, int size) {
  try {
    method[0] == 'e' ? geodesic_exact_cuda(*a, stream) : geodesic_raster_cuda(*a, stream);
  } catch (const std::exception& error) {
    return std::snprintf(text, size, "%s", error.what());
  }
  return 0;
}
