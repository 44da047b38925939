// Raster scan of volumes in the CPU's order: along every axis one sweep forth and one back, each pixel taking from the
// line before it, which is a plane. One launch does all iterations of all images.
//
// A block owns a tile of lanes, which are the pixels of a line, and sweeps kLines lines with a margin of kLines lanes
// around the tile: what is wrong at the end of such a margin, where the neighbours are missing, moves inwards by one
// lane a line and does not reach the tile. So the blocks of an image meet once every kLines lines, and only with their
// neighbours. The costs of the edges do not wait for the distances: they lie ready in registers before the block waits.
#include <algorithm>

#include "common/cuda.cuh"
#include "geodesic/cuda_raster.h"
#include "geodesic/edges.cuh"

namespace fastprompt {
namespace {

// Lanes have two axes, u and v.
struct Shape {
  static constexpr int kLines = 4;
  static constexpr int kTileU = 8, kTileV = 16;
  static constexpr int kU = kTileU + 2 * kLines, kV = kTileV + 2 * kLines, kThreads = kU * kV;
  static constexpr int kTaps = 9;  // lanes of the line before that a lane takes from
  // A line in shared memory has a border of one lane. Lines lie an odd number of floats apart: threads that hold
  // one lane of several lines hit several banks.
  static constexpr int kRow = kV + 2, kLine = (kU + 2) * kRow | 1;
  static constexpr int kFirst = kRow + 1;  // lane (0, 0)
  static constexpr int kBatch = 5;         // loads in flight of a thread
  static_assert((kLines + 1) % kBatch == 0, "whole batches");
};

// How the lines of a sweep lie in an image.
struct Axis {
  int lines, us, vs;
  int64_t line_stride, u_stride, v_stride;
  float straight, u_step, v_step, corner;
};

template <Metric M>
class Sweeper {
  using S = Shape;

 public:
  __device__ Sweeper(const GeodesicCuda& a, int b, int set, int* finished, int round, float* lines)
      : a_(a),
        pixels_(int64_t(a.nz) * a.ny * a.nx),
        image_(a.image + b * a.channels * pixels_),
        barrier_(a.barrier ? a.barrier + b * pixels_ : nullptr),
        out_(a.out + (int64_t(b) * a.sets + set) * pixels_),
        finished_(finished),
        lines_(lines),
        u_(threadIdx.x / S::kV),
        v_(threadIdx.x % S::kV),
        round_(round) {}

  // Both ways along an axis.
  __device__ void sweep(const Axis& axis) {
    const int across_v = (axis.vs + S::kTileV - 1) / S::kTileV;
    const int tiles = (axis.us + S::kTileU - 1) / S::kTileU * across_v;
    for (int dir = 1; dir >= -1; dir -= 2)
      for (int first = 1; first < axis.lines; first += S::kLines) {
        ++round_;
        const Lines lines{dir, dir > 0 ? first : axis.lines - 1 - first, min(S::kLines, axis.lines - first)};
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
          u0_ = tile / across_v * S::kTileU - S::kLines, v0_ = tile % across_v * S::kTileV - S::kLines;
          float cost[S::kLines][S::kTaps];
          costs(axis, lines, cost);
          wait_for_neighbours(tile, across_v, tiles);
          relax_lines(axis, lines, cost);
        }
        publish(finished_, blockIdx.x, round_);
      }
    meet_everybody();  // the next axis crosses the tiles
  }

  __device__ void meet_everybody() { meet_some(finished_, blockIdx.x, 0, gridDim.x - 1, ++round_); }
  __device__ int round() const { return round_; }

 private:
  // Some lines of a sweep: first, first + dir, ...
  struct Lines {
    int dir, first, count;
  };

  // The blocks of the tiles around this one have finished the round before this: the line before the first is final.
  __device__ void wait_for_neighbours(int tile, int across_v, int tiles) const {
    const int t = threadIdx.x;
    if (t < 9) {
      const int v = tile % across_v + t % 3 - 1, other = tile + (t / 3 - 1) * across_v + t % 3 - 1;
      if (v >= 0 && v < across_v && other >= 0 && other < tiles) wait_until(finished_ + other % gridDim.x, round_ - 1);
    }
    __syncthreads();
  }

  __device__ float* mine(int line) const { return lines_ + line * S::kLine + S::kFirst + u_ * S::kRow + v_; }
  __device__ static constexpr int tap(int k) { return (k / 3 - 1) * S::kRow + k % 3 - 1; }

  // NaN where there is no edge.
  __device__ void costs(const Axis& axis, const Lines& lines, float (&cost)[S::kLines][S::kTaps]) const {
#pragma unroll
    for (int n = 0; n < S::kLines; ++n)
#pragma unroll
      for (int k = 0; k < S::kTaps; ++k) cost[n][k] = 0.f;
#pragma unroll 1
    for (int c = 0; c < a_.channels; ++c) {
      const float* channel = image_ + c * pixels_;
      const uint8_t* barrier = c == 0 ? barrier_ : nullptr;
      stage(axis, lines, nan(), [&](int64_t p) { return image_value(channel, barrier, p); });
      __syncthreads();
#pragma unroll
      for (int n = 0; n < S::kLines; ++n) {
        const float here = *mine(n + 1);
#pragma unroll
        for (int k = 0; k < S::kTaps; ++k) cost[n][k] += edge_term<M>(here - mine(n)[tap(k)]);
      }
      __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < S::kLines; ++n)
#pragma unroll
      for (int k = 0; k < S::kTaps; ++k) cost[n][k] = edge_cost<M>(a_, cost[n][k], step(axis, k));
  }

  __device__ static float step(const Axis& axis, int k) {
    return k == 4 ? axis.straight : k / 3 == 1 ? axis.v_step : k % 3 == 1 ? axis.u_step : axis.corner;
  }

  __device__ void relax_lines(const Axis& axis, const Lines& lines, const float (&cost)[S::kLines][S::kTaps]) const {
    stage(axis, lines, infinity(), [&](int64_t p) { return load_shared_by_blocks(out_ + p); });
    __syncthreads();
#pragma unroll
    for (int n = 0; n < S::kLines; ++n) {
      if (n >= lines.count) break;
      const float* from = mine(n);
      float value = *mine(n + 1);
#pragma unroll
      for (int k = 0; k < S::kTaps; ++k) value = relax<M>(value, from[tap(k)], step(axis, k), cost[n][k]);
      *mine(n + 1) = value;
      __syncthreads();
    }
    store(axis, lines);
    __syncthreads();
  }

  // One pixel of some lines: where it is in the image and in shared memory.
  struct Place {
    int64_t pixel;
    int shared;
    bool inside, own;  // is it in the image, is it not of the margin
  };

  // The pixels that a thread moves are i = threadIdx.x, + kThreads, ... of `count` lines, -1 (the line before) or 0
  // being the first. Neighbours in memory go to neighbouring threads: where the lines lie side by side, a thread's
  // neighbour has the next line of the same lane.
  template <int First>
  __device__ Place place(const Axis& axis, const Lines& lines, int i) const {
    constexpr int kCount = S::kLines - First;
    const bool turned = axis.v_stride != 1;
    const int lane = turned ? i / kCount : i % S::kThreads, n = (turned ? i % kCount : i / S::kThreads) + First;
    const int u = lane / S::kV, v = lane % S::kV;
    Place place;
    place.pixel =
        (lines.first + lines.dir * n) * axis.line_stride + (u0_ + u) * axis.u_stride + (v0_ + v) * axis.v_stride;
    place.shared = (n + 1) * S::kLine + S::kFirst + u * S::kRow + v;
    place.inside = unsigned(u0_ + u) < unsigned(axis.us) && unsigned(v0_ + v) < unsigned(axis.vs) && n < lines.count;
    place.own = unsigned(u - S::kLines) < unsigned(S::kTileU) && unsigned(v - S::kLines) < unsigned(S::kTileV);
    return place;
  }

  // load(pixel) of all pixels of the lines and of the line before them, to shared memory.
  //
  // NOTE: the block beside this one may have written the distances that the margin reads, or not yet. Either will do: a
  // distance that has taken from the line before keeps its value when it does so again.
  template <class Load>
  __device__ void stage(const Axis& axis, const Lines& lines, float outside, Load load) const {
#pragma unroll 1
    for (int n = 0; n <= S::kLines; n += S::kBatch) {
      float value[S::kBatch];
#pragma unroll
      for (int k = 0; k < S::kBatch; ++k) {
        const Place from = place<-1>(axis, lines, threadIdx.x + (n + k) * S::kThreads);
        value[k] = from.inside ? load(from.pixel) : outside;
      }
#pragma unroll
      for (int k = 0; k < S::kBatch; ++k)
        lines_[place<-1>(axis, lines, threadIdx.x + (n + k) * S::kThreads).shared] = value[k];
    }
  }

  __device__ void store(const Axis& axis, const Lines& lines) const {
#pragma unroll 4
    for (int n = 0; n < S::kLines; ++n) {
      const Place to = place<0>(axis, lines, threadIdx.x + n * S::kThreads);
      if (to.inside && to.own) store_shared_by_blocks(out_ + to.pixel, lines_[to.shared]);
    }
  }

  const GeodesicCuda& a_;
  const int64_t pixels_;
  const float* const image_;
  const uint8_t* const barrier_;
  float* const out_;
  int* const finished_;
  float* const lines_;  // [kLines + 1][kLine]: the line before, then those that are swept
  const int u_, v_;     // lane of this thread
  int u0_, v0_;         // lane of the first thread
  int round_;
};

// Squared spacings added in the order that FastGeodis adds them: serial axis first.
template <Metric M>
__device__ Axis axis(const GeodesicCuda& a, int number) {
  const float z = a.spacing[0] * a.spacing[0], y = a.spacing[1] * a.spacing[1], x = a.spacing[2] * a.spacing[2];
  const int64_t row = a.nx, plane = row * a.ny;
  const auto step = [&](float squared) { return edge_step<M>(a, squared); };
  if (number == 0) return {a.nz, a.ny, a.nx, plane, row, 1, step(z), step(z + y), step(z + x), step((z + y) + x)};
  if (number == 1) return {a.ny, a.nz, a.nx, row, plane, 1, step(y), step(y + z), step(y + x), step((y + z) + x)};
  return {a.nx, a.nz, a.ny, 1, plane, row, step(x), step(x + z), step(x + y), step((x + y) + z)};
}

// Grid: (blocks of an image, images that are worked on at a time); all blocks must be resident.
template <Metric M>
__global__ void __launch_bounds__(Shape::kThreads, 1) raster_kernel(const __grid_constant__ GeodesicCuda a) {
  using S = Shape;
  __shared__ float lines[(S::kLines + 1) * S::kLine];
  for (int i = threadIdx.x; i < (S::kLines + 1) * S::kLine; i += S::kThreads)
    lines[i] = infinity();  // the borders stay
  const int64_t pixels = int64_t(a.nz) * a.ny * a.nx, stride = int64_t(gridDim.x) * S::kThreads;
  const int64_t mine = int64_t(blockIdx.x) * S::kThreads + threadIdx.x;
  int round = 0;
  for (int image = blockIdx.y; image < a.batch * a.sets; image += gridDim.y) {
    const int b = image / a.sets, set = image % a.sets;
    float* out = a.out + image * pixels;
    Sweeper<M> sweeper(a, b, set, a.workspace + blockIdx.y * gridDim.x, round, lines);
    for (int64_t p = mine; p < pixels; p += stride) store_shared_by_blocks(out + p, start_value(a, b, set, p));
    sweeper.meet_everybody();
    for (int n = 0; n < a.iterations; ++n)
#pragma unroll 1
      for (int number = 0; number < 3; ++number) sweeper.sweep(axis<M>(a, number));
    for (int64_t p = mine; a.limit < infinity() && p < pixels; p += stride)
      if (load_shared_by_blocks(out + p) > a.limit) store_shared_by_blocks(out + p, infinity());
    round = sweeper.round();
  }
}

// Tiles of the axis that has the most.
int tiles(const GeodesicCuda& a) {
  using S = Shape;
  const auto across = [](int us, int vs) {
    return ((us + S::kTileU - 1) / S::kTileU) * ((vs + S::kTileV - 1) / S::kTileV);
  };
  return std::max({across(a.ny, a.nx), across(a.nz, a.nx), across(a.nz, a.ny)});
}

template <Metric M>
void launch(GeodesicCuda a, cudaStream_t stream) {
  const char* what = "geodesic_raster_cuda";
  const int room = resident_blocks(raster_kernel<M>, Shape::kThreads, what), across = std::min(tiles(a), room);
  const dim3 grid(across, std::min(a.batch * a.sets, room / across));
  check_cuda(cudaMemsetAsync(a.workspace, 0, sizeof(int) * grid.x * grid.y, stream), what);
  void* arguments[] = {&a};
  check_cuda(cudaLaunchCooperativeKernel(raster_kernel<M>, grid, dim3(Shape::kThreads), arguments, 0, stream), what);
}

}  // namespace

int64_t geodesic_raster_volume_cuda_workspace(const GeodesicCuda& a) { return int64_t(tiles(a)) * a.batch * a.sets; }

void geodesic_raster_volume_cuda(const GeodesicCuda& a, void* stream) {
  with_metric_and_grid(
      a, [&](auto metric, auto) { launch<decltype(metric)::value>(a, static_cast<cudaStream_t>(stream)); });
}

}  // namespace fastprompt
