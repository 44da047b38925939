// Kernels with one mistake each; the interpreter must refuse every one of them.
extern "C" {

__global__ void missing_barrier_before_read(const float* x, float* out) {
  __shared__ float partial[256];
  int t = threadIdx.x;
  partial[t] = x[t];
  for (int k = 128; k > 0; k >>= 1) {
    if (t < k) partial[t] += partial[t + k];
    __syncthreads();
  }
  if (t == 0) *out = partial[0];
}

__global__ void missing_barrier_before_overwrite(const float* x, float* out) {
  __shared__ float buffer[256];
  int t = threadIdx.x;
  for (int i = 0; i < 4; i++) {
    buffer[t] = x[t] * i;
    __syncthreads();
    out[t] += buffer[255 - t];
  }
}

__global__ void read_past_the_end(const float* x, float* out) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[i + 1];
}

__global__ void divergent_barrier(const float* x, float* out) {
  __shared__ float buffer[256];
  int t = threadIdx.x;
  buffer[t] = x[t];
  if (t < 100)
    __syncthreads();
  else if (t < 200)
    return;
  out[t] = buffer[t ^ 1];
  if (t >= 200) __syncthreads();
}

__global__ void shuffle_with_absent_lanes(const float* x, float* out) {
  int t = threadIdx.x;
  float v = x[t];
  if (t < 16) v += __shfl_down_sync(0xffffffffu, v, 1);
  out[t] = v;
}

__global__ void misaligned_load(const float* x, float4* out) {
  out[threadIdx.x] = *(const float4*)(x + threadIdx.x + 1);
}

__global__ void read_wide_after_narrow_write(const float* x, float* out) {
  __shared__ float4 buffer[64];
  int t = threadIdx.x;
  ((float*)buffer)[t] = x[t];
  if (t < 64) out[t] = buffer[63 - t].y + buffer[63 - t].w;
}

__global__ void read_counter_without_barrier(const float* x, float* out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  if (x[threadIdx.x] > 0) atomicAdd(&count, 1);
  out[threadIdx.x] = count;
}

// A sweep whose rows cross block borders with only a block-wide barrier between.
__global__ void neighbour_block_race(float* x, int width) {
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  for (int r = 1; r < 4; r++) {
    if (c > 0) x[r * width + c] += x[(r - 1) * width + c - 1];
    __syncthreads();
  }
}

__global__ void write_to_input(float* x, float* out) {
  out[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = 0;
}

__global__ void shared_past_the_end(const float* x, float* out) {
  __shared__ float buffer[64];
  int t = threadIdx.x;
  buffer[t + 8] = x[t];
  __syncthreads();
  out[t] = buffer[t];
}

__global__ void mask_without_the_caller(const float* x, float* out) {
  int t = threadIdx.x;
  out[t] = __shfl_xor_sync(0x0000ffffu, x[t], 1);
}

__global__ void barrier_in_a_branch(const float* x, float* out) {
  __shared__ float buffer[64];
  int t = threadIdx.x;
  buffer[t] = x[t];
  if (x[t] < 40) {
    __syncthreads();
    out[t] = buffer[t ^ 1];
  } else {
    __syncthreads();
    out[t] = 2 * buffer[t ^ 3];
  }
}

#if __CUDA_ARCH__ >= 800
__global__ void missing_wait_for_copy(const float4* x, float4* out) {
  __shared__ float4 buffer[128];
  unsigned target = __cvta_generic_to_shared(&buffer[threadIdx.x]);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(x + threadIdx.x) : "memory");
  asm volatile("cp.async.commit_group;" ::: "memory");
  __syncthreads();
  out[threadIdx.x] = buffer[127 - threadIdx.x];
}
#endif
}
