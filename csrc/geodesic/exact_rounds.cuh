// The exact distance: tiles of the image are relaxed in shared memory until nothing in them changes, and wake those
// neighbours whose halo they changed, until none is awake. A distance only ever falls, to what some path costs, and the
// fix-point is unique: so the result depends neither on the order of the tiles nor on what a tile sees of a neighbour
// that works at the same time. Bit-equal to Dijkstra's algorithm.
//
// One launch: rounds with all blocks meeting between them. In a round a tile belongs to one block only.
#pragma once
#include <algorithm>

#include "common/cuda.cuh"
#include "geodesic/edges.cuh"

namespace fastprompt {

// The tiles of all images and seed sets, each kDepth x kHeight x kWidth pixels, x fastest.
template <class Tile>
struct Tiling {
  int nz, ny, nx, per_image, all;

  __host__ __device__ explicit Tiling(const GeodesicCuda& a)
      : nz((a.nz + Tile::kDepth - 1) / Tile::kDepth),
        ny((a.ny + Tile::kHeight - 1) / Tile::kHeight),
        nx((a.nx + Tile::kWidth - 1) / Tile::kWidth),
        per_image(nz * ny * nx),
        all(per_image * a.batch * a.sets) {}
};

// The workspace: counters, then for every tile the round in which it was woken, then two lists of awake tiles.
constexpr int kCounters = 4;
struct Awake {
  int* arrived;  // blocks that have met
  int* count;    // [3] tiles awake in a round, by its number modulo 3: read, filled, cleared
  int* woken;
  int* list;
  int all;

  __device__ Awake(int* workspace, int all)
      : arrived(workspace), count(workspace + 1), woken(workspace + kCounters), list(woken + all), all(all) {}

  // In round 0 every tile is awake.
  __device__ int number(int round) const { return round == 0 ? all : load_shared_by_blocks(count + round % 3); }
  __device__ int tile(int round, int n) const {
    return round == 0 ? n : load_shared_by_blocks(list + round % 2 * all + n);
  }
  __device__ void wake(int tile, int next) {
    if (atomicExch(woken + tile, next) == next) return;
    store_shared_by_blocks(list + next % 2 * all + atomicAdd(count + next % 3, 1), tile);
  }
};

// The pixels of a tile with a halo of one around it, as they lie in shared memory.
template <class Tile>
class Halo {
 public:
  static constexpr int kRow = Tile::kWidth + 2, kPlane = (Tile::kHeight + 2) * kRow;
  static constexpr int kPixels = (Tile::kDepth > 1 ? Tile::kDepth + 2 : 1) * kPlane;
  static constexpr int kFirst = kRow + 1 + (Tile::kDepth > 1 ? kPlane : 0);  // pixel (0, 0, 0) of the tile

  __device__ Halo(const GeodesicCuda& a, int z, int y, int x) : a_(a), z_(z), y_(y), x_(x) {}

  __device__ bool inside(int z, int y, int x) const {
    return unsigned(z_ + z) < unsigned(a_.nz) && unsigned(y_ + y) < unsigned(a_.ny) &&
           unsigned(x_ + x) < unsigned(a_.nx);
  }
  __device__ int64_t pixel(int z, int y, int x) const { return (int64_t(z_ + z) * a_.ny + y_ + y) * a_.nx + x_ + x; }

  // load(pixel), or `outside` the image, to shared memory: all loads of a thread are on their way at a time.
  template <class Load>
  __device__ void stage(float* shared, float outside, Load load) const {
    constexpr int kEach = (kPixels + Tile::kThreads - 1) / Tile::kThreads;
    float value[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int e = threadIdx.x + k * Tile::kThreads;
      const int z = Tile::kDepth > 1 ? e / kPlane - 1 : 0, y = e % kPlane / kRow - 1, x = e % kRow - 1;
      value[k] = e < kPixels && inside(z, y, x) ? load(pixel(z, y, x)) : outside;
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k)
      if (const int e = threadIdx.x + k * Tile::kThreads; e < kPixels) shared[e] = value[k];
  }

 private:
  const GeodesicCuda& a_;
  const int z_, y_, x_;
};

template <class Tile>
struct SharedMemory {
  float distance[Halo<Tile>::kPixels];  // +inf outside the image
  float image[Halo<Tile>::kPixels];     // of one channel
  int sides;  // bit 9 dz + 3 dy + dx + 13: pixels changed that the tile (dz, dy, dx) from here sees
};

// Tile(a, halo, image, shared).run(first) relaxes a tile. It returns the sides that changed, to all threads.
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerProcessor)
    exact_kernel(const __grid_constant__ GeodesicCuda a) {
  __shared__ SharedMemory<Tile> shared;
  const Tiling<Tile> tiles(a);
  Awake awake(a.workspace, tiles.all);
  for (int round = 0;; ++round) {
    const int number = awake.number(round);
    if (number == 0) break;
    for (int n = blockIdx.x; n < number; n += gridDim.x) {
      const int tile = awake.tile(round, n), t = threadIdx.x;
      const int in_image = tile % tiles.per_image, x = in_image % tiles.nx, y = in_image / tiles.nx % tiles.ny,
                z = in_image / tiles.nx / tiles.ny;
      const Halo<Tile> halo(a, z * Tile::kDepth, y * Tile::kHeight, x * Tile::kWidth);
      const int sides = Tile(a, halo, tile / tiles.per_image, shared).run(round == 0);
      if (t < 27 && t != 13 && (sides >> t & 1)) {
        const int dz = t / 9 - 1, dy = t / 3 % 3 - 1, dx = t % 3 - 1;
        const bool exists = unsigned(z + dz) < unsigned(tiles.nz) && unsigned(y + dy) < unsigned(tiles.ny) &&
                            unsigned(x + dx) < unsigned(tiles.nx);
        if (exists) awake.wake(tile + (dz * tiles.ny + dy) * tiles.nx + dx, round + 1);
      }
      __syncthreads();  // the next tile takes the shared memory
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) store_shared_by_blocks(awake.count + (round + 2) % 3, 0);
    meet_all(awake.arrived, (round + 1) * gridDim.x);
  }
  const int64_t pixels = int64_t(a.batch) * a.sets * a.nz * a.ny * a.nx;
  for (int64_t p = int64_t(blockIdx.x) * Tile::kThreads + threadIdx.x; a.limit < infinity() && p < pixels;
       p += int64_t(gridDim.x) * Tile::kThreads)
    if (load_shared_by_blocks(a.out + p) > a.limit) store_shared_by_blocks(a.out + p, infinity());
}

template <class Tile>
void launch_exact(GeodesicCuda a, cudaStream_t stream) {
  const char* what = "geodesic_exact_cuda";
  constexpr int threads = Tile::kThreads;
  const int all = Tiling<Tile>(a).all, blocks = std::min(all, resident_blocks(exact_kernel<Tile>, threads, what));
  check_cuda(cudaMemsetAsync(a.workspace, 0, sizeof(int) * (kCounters + all), stream), what);
  void* arguments[] = {&a};
  check_cuda(cudaLaunchCooperativeKernel(exact_kernel<Tile>, dim3(blocks), dim3(threads), arguments, 0, stream), what);
}

template <class Tile>
int64_t exact_workspace(const GeodesicCuda& a) {
  return kCounters + 3 * int64_t(Tiling<Tile>(a).all);
}

}  // namespace fastprompt
