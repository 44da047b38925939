#include <algorithm>

#include "common/cuda.cuh"
#include "export/tensorrt/difference.h"

namespace fastprompt::tensorrt {
namespace {

constexpr int kThreads = 256;

__global__ void difference_kernel(const float* __restrict__ both, float* __restrict__ out, int64_t count,
                                  int64_t pixels) {
  for (int64_t n = int64_t(blockIdx.x) * kThreads + threadIdx.x; n < count; n += int64_t(gridDim.x) * kThreads) {
    const float* to_map = both + n + n / pixels * pixels;
    out[n] = isinf(*to_map) ? *to_map : *to_map - to_map[pixels];
  }
}

}  // namespace

void signed_difference(const float* both, float* out, int64_t count, int64_t pixels, void* stream) {
  const int blocks = static_cast<int>(std::min<int64_t>((count + kThreads - 1) / kThreads, 1 << 16));
  difference_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(both, out, count, pixels);
  check_cuda(cudaGetLastError(), "signed_difference");
}

}  // namespace fastprompt::tensorrt
