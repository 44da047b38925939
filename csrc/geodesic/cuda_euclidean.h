// The Euclidean distance transform on a GPU, with the numbers of csrc/geodesic/euclidean.h.
#pragma once
#include <cstdint>

namespace fastprompt {

// All arrays are contiguous and on the current device.
struct EuclideanCuda {
  const uint8_t* mask;  // (batch, nz, ny, nx): non-zero = seed
  float* out;           // (batch, nz, ny, nx); +inf where the image has no seed
  float* workspace;     // euclidean_cuda_workspace() of them, whatever they hold
  int64_t batch;
  int nz, ny, nx;     // a 2-D image has nz = 1
  double spacing[3];  // z, y, x, each > 0
};

constexpr int kEuclideanCudaRows = 12288;      // ny at most: the seeds of 32 columns lie in 48 KiB of shared memory
constexpr int kEuclideanCudaLine = 32 * 1500;  // nz and nx at most: so does what a line's envelope knows

int64_t euclidean_cuda_workspace(const EuclideanCuda& args);  // floats

// Two launches on `stream` (a cudaStream_t), three of volumes; does not wait for it and allocates nothing. Throws
// std::runtime_error where CUDA reports an error.
void euclidean_cuda(const EuclideanCuda& args, void* stream);

}  // namespace fastprompt
