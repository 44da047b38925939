// Launches, and how blocks of one launch wait for one another.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fastprompt {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clear it, or the next call reports it again
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

// Blocks that the current device runs at a time: what a cooperative launch may ask for.
template <class Kernel>
int resident_blocks(Kernel kernel, int threads, const char* what) {
  int device, processors, per_processor;
  check_cuda(cudaGetDevice(&device), what);
  check_cuda(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), what);
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel, threads, 0), what);
  return processors * per_processor;
}

// Memory that several blocks read and write in one launch goes past the L1 caches.
__device__ inline float load_shared_by_blocks(const float* p) {
  float x;
  asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(x) : "l"(p) : "memory");
  return x;
}
__device__ inline int load_shared_by_blocks(const int* p) {
  int x;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
  return x;
}
__device__ inline double load_shared_by_blocks(const double* p) {
  double x;
  asm volatile("ld.relaxed.gpu.global.f64 %0, [%1];" : "=d"(x) : "l"(p) : "memory");
  return x;
}
__device__ inline void store_shared_by_blocks(double* p, double x) {
  asm volatile("st.relaxed.gpu.global.f64 [%0], %1;" ::"l"(p), "d"(x) : "memory");
}
__device__ inline void store_shared_by_blocks(float* p, float x) {
  asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(p), "f"(x) : "memory");
}
__device__ inline void store_shared_by_blocks(int* p, int x) {
  asm volatile("st.relaxed.gpu.global.s32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}

__device__ inline int load_acquire(const int* p) {
  int x;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
  return x;
}
__device__ inline void store_release(int* p, int x) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}
__device__ inline void add_release(int* p, int x) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}

// All blocks of the launch meet; `arrived` has counted to `goal` then. Blocks must be resident: a cooperative launch.
// Others see what a block wrote before its last barrier, and what its first thread wrote behind it.
__device__ inline void meet_all(int* arrived, int goal) {
  if (threadIdx.x == 0) {
    add_release(arrived, 1);
    while (load_acquire(arrived) < goal) {
    }
  }
  __syncthreads();
}

// This block has finished `round`: what its threads wrote before their last barrier is seen by who waits for it.
__device__ inline void publish(int* finished, int self, int round) {
  if (threadIdx.x == 0) store_release(finished + self, round);
}

__device__ inline void wait_until(const int* finished, int round) {
  while (load_acquire(finished) < round) {
  }
}

// This block has finished `round`; waits until the blocks [low, high] have, too.
__device__ inline void meet_some(int* finished, int self, int low, int high, int round) {
  __syncthreads();
  publish(finished, self, round);
  for (int p = low + static_cast<int>(threadIdx.x); p <= high; p += blockDim.x) wait_until(finished + p, round);
  __syncthreads();
}

}  // namespace fastprompt
