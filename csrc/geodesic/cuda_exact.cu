// The exact distance: tiles of the image are relaxed in shared memory until nothing in them changes, and wake those
// neighbours whose halo they changed, until none is awake. A distance only ever falls, to what some path costs, and the
// fix-point is unique: so the result depends neither on the order of the tiles nor on what a tile sees of a neighbour
// that works at the same time. Bit-equal to Dijkstra's algorithm.
//
// One launch: rounds with all blocks meeting between them. In a round a tile belongs to one block only.
#include <algorithm>

#include "common/cuda.cuh"
#include "geodesic/edges.cuh"

namespace fastprompt {
namespace {

constexpr int kEdge = 32, kStrip = 4, kRows = kEdge / kStrip, kThreads = kEdge * kRows;  // a thread has 4 pixels

struct Tiling {
  int nx, per_image, all;
};

__host__ __device__ Tiling tiling(const GeodesicCuda& a) {
  const int nx = (a.nx + kEdge - 1) / kEdge, ny = (a.ny + kEdge - 1) / kEdge;
  return {nx, nx * ny, nx * ny * a.batch * a.sets};
}

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

struct SharedMemory {
  float distance[kEdge + 2][kEdge + 2];  // with a halo of one pixel; +inf outside the image
  int sides;                             // bit 3 dy + dx + 4: pixels changed that the tile (dy, dx) from here sees
};

template <Metric M>
class TileSolver {
 public:
  __device__ TileSolver(const GeodesicCuda& a, const Tiling& tiles, int tile, SharedMemory& shared)
      : a_(a),
        shared_(shared),
        image_(tile / tiles.per_image),
        y_(tile % tiles.per_image / tiles.nx * kEdge),
        x_(tile % tiles.per_image % tiles.nx * kEdge),
        out_(a.out + int64_t(image_) * a.ny * a.nx) {}

  // Returns the sides that changed, to all threads.
  __device__ int run(bool first) {
    load(first);
    float cost[kStrip][8], value[kStrip], before[kStrip];
    costs(cost);
    const int row = threadIdx.x / kEdge * kStrip, column = threadIdx.x % kEdge;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kStrip; ++k) value[k] = before[k] = shared_.distance[row + k + 1][column + 1];
    bool changed;
    do changed = relax_strip(row, column, cost, value);
    while (__syncthreads_or(changed));
    return store(first, row, column, value, before);
  }

 private:
  __device__ bool inside(int y, int x) const { return y >= 0 && y < a_.ny && x >= 0 && x < a_.nx; }
  __device__ int64_t pixel(int y, int x) const { return int64_t(y) * a_.nx + x; }

  __device__ void load(bool first) {
    constexpr int kSide = kEdge + 2;
    for (int e = threadIdx.x; e < kSide * kSide; e += kThreads) {
      const int y = y_ + e / kSide - 1, x = x_ + e % kSide - 1;
      float d = infinity();
      if (inside(y, x))
        d = first ? start_value(a_, image_ / a_.sets, image_ % a_.sets, pixel(y, x))
                  : load_shared_by_blocks(out_ + pixel(y, x));
      shared_.distance[e / kSide][e % kSide] = d;
    }
    if (threadIdx.x == 0) shared_.sides = 0;
  }

  // Of the edges to the eight neighbours, row by row; NaN where there is none.
  __device__ void costs(float (&cost)[kStrip][8]) const {
    const Picture picture(a_, image_ / a_.sets);
    const Steps steps = edge_steps<M>(a_);
#pragma unroll
    for (int k = 0; k < kStrip; ++k) {
      const int y = y_ + static_cast<int>(threadIdx.x) / kEdge * kStrip + k, x = x_ + threadIdx.x % kEdge;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const int dy = (n + (n > 3)) / 3 - 1, dx = (n + (n > 3)) % 3 - 1;
        const float step = dy == 0 ? steps.x : dx == 0 ? steps.y : steps.diagonal;
        const bool edge = inside(y, x) && inside(y + dy, x + dx);
        cost[k][n] = edge ? edge_cost<M>(a_, picture, pixel(y, x), pixel(y + dy, x + dx), step) : nan();
      }
    }
  }

  // One pass over the pixels of a thread, down and up. Threads read what others write at the same time: the old or the
  // new value, either is a distance that some path has.
  __device__ bool relax_strip(int row, int column, const float (&cost)[kStrip][8], float (&value)[kStrip]) {
    const Steps steps = edge_steps<M>(a_);
    const auto at = [&](int y, int x) {
      return *static_cast<const volatile float*>(&shared_.distance[row + y + 1][column + x + 1]);
    };
    float before[kStrip];
    float above[3] = {at(-1, -1), at(-1, 0), at(-1, 1)};
#pragma unroll
    for (int k = 0; k < kStrip; ++k) {
      const float left = at(k, -1), right = at(k, 1);
      float v = before[k] = value[k];
      v = relax<M>(v, above[0], steps.diagonal, cost[k][0]);
      v = relax<M>(v, above[1], steps.y, cost[k][1]);
      v = relax<M>(v, above[2], steps.diagonal, cost[k][2]);
      v = relax<M>(v, left, steps.x, cost[k][3]);
      v = relax<M>(v, right, steps.x, cost[k][4]);
      value[k] = v;
      above[0] = left, above[1] = v, above[2] = right;
    }
    float below[3] = {at(kStrip, -1), at(kStrip, 0), at(kStrip, 1)};
    bool changed = false;
#pragma unroll
    for (int k = kStrip - 1; k >= 0; --k) {
      float v = value[k];
      v = relax<M>(v, below[0], steps.diagonal, cost[k][5]);
      v = relax<M>(v, below[1], steps.y, cost[k][6]);
      v = relax<M>(v, below[2], steps.diagonal, cost[k][7]);
      value[k] = v;
      if (v < before[k]) {
        *static_cast<volatile float*>(&shared_.distance[row + k + 1][column + 1]) = v;
        changed = true;
      }
      below[0] = at(k, -1), below[1] = v, below[2] = at(k, 1);
    }
    return changed;
  }

  __device__ int store(bool first, int row, int column, const float (&value)[kStrip], const float (&before)[kStrip]) {
    int sides = 0;
#pragma unroll
    for (int k = 0; k < kStrip; ++k) {
      const int y = row + k;
      const bool changed = value[k] < before[k];
      if ((first || changed) && inside(y_ + y, x_ + column))
        store_shared_by_blocks(out_ + pixel(y_ + y, x_ + column), value[k]);
      if (!changed) continue;
      const int dy = y == 0 ? -1 : y == kEdge - 1 ? 1 : 0, dx = column == 0 ? -1 : column == kEdge - 1 ? 1 : 0;
      sides |= 1 << (3 * dy + 4) | 1 << (dx + 4) | 1 << (3 * dy + dx + 4);
    }
    if (sides & ~(1 << 4)) atomicOr(&shared_.sides, sides);
    __syncthreads();
    return shared_.sides;
  }

  const GeodesicCuda& a_;
  SharedMemory& shared_;
  const int image_, y_, x_;
  float* const out_;
};

template <Metric M>
__global__ void __launch_bounds__(kThreads, 2) exact_kernel(const __grid_constant__ GeodesicCuda a) {
  __shared__ SharedMemory shared;
  const Tiling tiles = tiling(a);
  Awake awake(a.workspace, tiles.all);
  for (int round = 0;; ++round) {
    const int number = awake.number(round);
    if (number == 0) break;
    for (int n = blockIdx.x; n < number; n += gridDim.x) {
      const int tile = awake.tile(round, n), t = threadIdx.x;
      const int sides = TileSolver<M>(a, tiles, tile, shared).run(round == 0);
      const int x = tile % tiles.nx + t % 3 - 1, y = tile % tiles.per_image / tiles.nx + t / 3 - 1;
      if (t < 9 && t != 4 && (sides >> t & 1) && x >= 0 && x < tiles.nx && y >= 0 && y < tiles.per_image / tiles.nx)
        awake.wake(tile + (t / 3 - 1) * tiles.nx + t % 3 - 1, round + 1);
      __syncthreads();  // the next tile takes the shared memory
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) store_shared_by_blocks(awake.count + (round + 2) % 3, 0);
    meet_all(awake.arrived, (round + 1) * gridDim.x);
  }
  const int64_t pixels = int64_t(a.batch) * a.sets * a.ny * a.nx;
  for (int64_t p = int64_t(blockIdx.x) * kThreads + threadIdx.x; a.limit < infinity() && p < pixels;
       p += int64_t(gridDim.x) * kThreads)
    if (load_shared_by_blocks(a.out + p) > a.limit) store_shared_by_blocks(a.out + p, infinity());
}

template <Metric M>
void launch(GeodesicCuda a, cudaStream_t stream) {
  const char* what = "geodesic_exact_cuda";
  if (a.volume) throw std::invalid_argument("geodesic_exact_cuda: volumes are not implemented");
  const Tiling tiles = tiling(a);
  const int blocks = std::min(tiles.all, resident_blocks(exact_kernel<M>, kThreads, what));
  check_cuda(cudaMemsetAsync(a.workspace, 0, sizeof(int) * (kCounters + tiles.all), stream), what);
  void* arguments[] = {&a};
  check_cuda(cudaLaunchCooperativeKernel(exact_kernel<M>, dim3(blocks), dim3(kThreads), arguments, 0, stream), what);
}

}  // namespace

int64_t geodesic_exact_cuda_workspace(const GeodesicCuda& a) { return kCounters + 3 * int64_t(tiling(a).all); }

void geodesic_exact_cuda(const GeodesicCuda& a, void* stream) {
  with_metric(a, [&](auto metric) { launch<decltype(metric)::value>(a, static_cast<cudaStream_t>(stream)); });
}

}  // namespace fastprompt
