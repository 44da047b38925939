// Where the raster scan of a picture keeps its costs and distances, and the two kernels around the sweeps: one writes
// the costs of the edges and the start distances, one turns the distances between the axes.
#pragma once
#include <algorithm>

#include "common/cuda.cuh"
#include "geodesic/edges.cuh"

namespace fastprompt {

constexpr char kRasterName[] = "geodesic_raster_cuda";

constexpr int kWarp = 32, kEach = 4, kLanes = kWarp * kEach;  // of a warp; kEach lanes a thread
constexpr int kLines = 32;                                    // of a round, and lanes of a margin
constexpr int kTile = kLanes - 2 * kLines;                    // lanes of a tile
constexpr int kGroup = 4, kStages = 5;  // lines that are fetched at a time, and such groups in shared memory
static_assert(kLines % kGroup == 0 && kLines % kEach == 0 && kTile > 0, "whole groups of lines, whole threads");

constexpr int kSquare = 32, kSquareThreads = 256;  // pixels that are turned at a time, and who does it

// The lines along one axis, each with room for whole tiles and a margin on either side: lane 0 is at kLines. Rows start
// at multiples of 256 bytes.
struct RasterLines {
  int count, lanes;

  __host__ __device__ int tiles() const { return (lanes + kTile - 1) / kTile; }
  __host__ __device__ int pitch() const { return tiles() * kTile + 2 * kLines; }
  __host__ __device__ int64_t plane() const { return int64_t(count) * pitch(); }
  __host__ __device__ int rounds() const { return (count + kLines - 2) / kLines; }
};

// costs: [batch][3][lines][pitch] for either axis. Of lane x of line n: the edge to lane x of line n + 1, the one to
// lane x + 1 of line n + 1, the one from lane x + 1 of line n to lane x of line n + 1; NaN where there is none, so it
// does not matter what the distances of lanes outside the image are. An edge costs the same both ways: the terms of
// edges.cuh are even.
struct RasterWorkspace {
  RasterLines rows, columns;
  float* costs[2];      // of rows, of columns
  float* distances[2];  // [images][lines][pitch] of rows or columns, twice
  uint64_t* words;      // [images][rounds][tiles * kTile], for the sweeps
  int64_t all_words, ints;

  explicit RasterWorkspace(const GeodesicCuda& a) : rows{a.ny, a.nx}, columns{a.nx, a.ny} {
    const int64_t images = int64_t(a.batch) * a.sets;
    int64_t used = 0;
    const auto floats = [&](int64_t count) { return reinterpret_cast<float*>(a.workspace) + (used += count) - count; };
    costs[0] = floats(3 * a.batch * rows.plane());
    costs[1] = floats(3 * a.batch * columns.plane());
    for (float*& d : distances) d = floats(images * std::max(rows.plane(), columns.plane()));
    const auto of = [&](const RasterLines& l) { return images * l.rounds() * l.tiles() * kTile; };
    all_words = std::max(of(rows), of(columns));
    words = reinterpret_cast<uint64_t*>(floats(2 * all_words));
    ints = used;
  }
};

// ---------------------------------------------------------------- costs and start

// One square of pixels, of those that rows and columns have with their margins.
template <Metric M>
class RasterSquare {
 public:
  __device__ RasterSquare(const GeodesicCuda& a, const RasterWorkspace& w, int b, int y, int x)
      : a_(a), w_(w), pixels_(int64_t(a.ny) * a.nx), b_(b), y_(y), x_(x) {}

  __device__ void write() const {
    __shared__ float turned[3][kSquare][kSquare + 1];
    const int t = threadIdx.x % kSquare;
    for (int r = threadIdx.x / kSquare; r < kSquare; r += kSquareThreads / kSquare) {
      const int y = y_ + r, x = x_ + t;
      float cost[kEdges];
      costs(y, x, cost);
      if (unsigned(y) < unsigned(a_.ny)) put(0, w_.rows, y, x, cost[kDown], cost[kFalling], cost[kRising]);
      turned[0][r][t] = cost[kRight], turned[1][r][t] = cost[kFalling], turned[2][r][t] = cost[kRising];
      if (inside(y, x)) start(y, x);
    }
    __syncthreads();
    for (int r = threadIdx.x / kSquare; r < kSquare; r += kSquareThreads / kSquare)
      if (unsigned(x_ + r) < unsigned(a_.nx))
        put(1, w_.columns, x_ + r, y_ + t, turned[0][t][r], turned[1][t][r], turned[2][t][r]);
  }

 private:
  // Of pixel (y, x): to (y, x + 1), (y + 1, x), (y + 1, x + 1); between (y, x + 1) and (y + 1, x).
  enum Edge { kRight, kDown, kFalling, kRising, kEdges };

  __device__ bool inside(int y, int x) const { return unsigned(y) < unsigned(a_.ny) && unsigned(x) < unsigned(a_.nx); }

  __device__ void costs(int y, int x, float (&cost)[kEdges]) const {
    float sum[kEdges] = {};
    for (int c = 0; c < a_.channels; ++c) {
      const float* channel = a_.image + (int64_t(b_) * a_.channels + c) * pixels_;
      const uint8_t* barrier = a_.barrier && c == 0 ? a_.barrier + b_ * pixels_ : nullptr;
      const auto value = [&](int y, int x) {
        return inside(y, x) ? image_value(channel, barrier, int64_t(y) * a_.nx + x) : nan();
      };
      const float here = value(y, x), right = value(y, x + 1), below = value(y + 1, x);
      sum[kRight] += edge_term<M>(here - right);
      sum[kDown] += edge_term<M>(here - below);
      sum[kFalling] += edge_term<M>(here - value(y + 1, x + 1));
      sum[kRising] += edge_term<M>(right - below);
    }
    const float down = a_.spacing[1] * a_.spacing[1], right = a_.spacing[2] * a_.spacing[2];
    const float squared[] = {right, down, down + right, down + right};
#pragma unroll
    for (int e = 0; e < kEdges; ++e) cost[e] = edge_cost<M>(a_, sum[e], edge_step<M>(a_, squared[e]));
  }

  __device__ void put(int axis, const RasterLines& lines, int line, int lane, float straight, float leaving,
                      float entering) const {
    if (unsigned(lane + kLines) >= unsigned(lines.pitch())) return;
    float* to = w_.costs[axis] + 3 * b_ * lines.plane() + int64_t(line) * lines.pitch() + lane + kLines;
    to[0] = straight, to[lines.plane()] = leaving, to[2 * lines.plane()] = entering;
  }

  __device__ void start(int y, int x) const {
    for (int set = 0; set < a_.sets; ++set)
      w_.distances[0][(int64_t(b_) * a_.sets + set) * w_.rows.plane() + int64_t(y) * w_.rows.pitch() + x + kLines] =
          start_value(a_, b_, set, int64_t(y) * a_.nx + x);
  }

  const GeodesicCuda& a_;
  const RasterWorkspace& w_;
  const int64_t pixels_;
  const int b_, y_, x_;  // first pixel
};

// Squares of all pixels with their margins.
struct RasterSquares {
  int across, all;
  explicit RasterSquares(int height, int width)
      : across((width + kSquare - 1) / kSquare), all((height + kSquare - 1) / kSquare * across) {}
};

template <Metric M>
__global__ void __launch_bounds__(kSquareThreads, 2)
    raster_costs_kernel(const __grid_constant__ GeodesicCuda a, const __grid_constant__ RasterWorkspace w, int across) {
  const int64_t thread = (int64_t(blockIdx.y) * gridDim.x + blockIdx.x) * kSquareThreads + threadIdx.x;
  for (int64_t n = thread; n < w.all_words; n += int64_t(gridDim.x) * gridDim.y * kSquareThreads)
    w.words[n] = 0;  // of no sweep
  const int y = int(blockIdx.x) / across * kSquare - kLines, x = int(blockIdx.x) % across * kSquare - kLines;
  for (int b = blockIdx.y; b < a.batch; b += gridDim.y) {
    RasterSquare<M>(a, w, b, y, x).write();
    __syncthreads();
  }
}

constexpr int kMostBlocksY = 65535;

template <Metric M>
void prepare_raster(const GeodesicCuda& a, const RasterWorkspace& w, cudaStream_t stream) {
  const RasterSquares squares(w.columns.pitch(), w.rows.pitch());
  raster_costs_kernel<M>
      <<<dim3(squares.all, std::min(a.batch, kMostBlocksY)), kSquareThreads, 0, stream>>>(a, w, squares.across);
  check_cuda(cudaGetLastError(), kRasterName);
}

// ---------------------------------------------------------------- turning

// Line n of image i, lane 0: at + i * image + n * pitch.
template <class Float>
struct Turnable {
  Float* at;
  int64_t image, pitch;
};

// Lane x of line y becomes lane y of line x; what is above the limit +inf.
struct Turn {
  Turnable<const float> from;
  Turnable<float> to;
  int images, lines, lanes, across;
  float limit;
};

template <bool Last>
__global__ void __launch_bounds__(kSquareThreads) raster_turn_kernel(const __grid_constant__ Turn turn) {
  __shared__ float square[kSquare][kSquare + 1];
  const int t = threadIdx.x % kSquare, first = threadIdx.x / kSquare;
  const int line = int(blockIdx.x) / turn.across * kSquare, lane = int(blockIdx.x) % turn.across * kSquare;
  for (int image = blockIdx.y; image < turn.images; image += gridDim.y) {
    const float* from = turn.from.at + image * turn.from.image;
    float* to = turn.to.at + image * turn.to.image;
#pragma unroll
    for (int r = first; r < kSquare; r += kSquareThreads / kSquare)
      if (line + r < turn.lines && lane + t < turn.lanes) square[r][t] = from[(line + r) * turn.from.pitch + lane + t];
    __syncthreads();
#pragma unroll
    for (int r = first; r < kSquare; r += kSquareThreads / kSquare)
      if (lane + r < turn.lanes && line + t < turn.lines) {
        const float d = square[t][r];
        to[(lane + r) * turn.to.pitch + line + t] = Last && d > turn.limit ? infinity() : d;
      }
    __syncthreads();
  }
}

// Distances of rows to columns; back again, and at last to the result.
inline void turn_raster(const GeodesicCuda& a, const RasterWorkspace& w, bool back, bool last, cudaStream_t stream) {
  const RasterLines& from = back ? w.columns : w.rows;
  const RasterLines& to = back ? w.rows : w.columns;
  const RasterSquares squares(from.count, from.lanes);
  const int images = a.batch * a.sets;
  Turn turn{{w.distances[back] + kLines, from.plane(), from.pitch()},
            {w.distances[!back] + kLines, to.plane(), to.pitch()},
            images,
            from.count,
            from.lanes,
            squares.across,
            a.limit};
  if (last) turn.to = {a.out, int64_t(a.ny) * a.nx, a.nx};
  const dim3 grid(squares.all, std::min(images, kMostBlocksY));
  last ? raster_turn_kernel<true><<<grid, kSquareThreads, 0, stream>>>(turn)
       : raster_turn_kernel<false><<<grid, kSquareThreads, 0, stream>>>(turn);
  check_cuda(cudaGetLastError(), kRasterName);
}

}  // namespace fastprompt
