// Raster scan in the CPU's order: along y forth and back, along x forth and back, each line of pixels taking from the
// line before it. One launch does all iterations of all images.
//
// A block owns kPart lanes (columns while the sweep runs along y) and sweeps kLines lines with kLines lanes more on
// either side: what is wrong at the end of such a margin, where the neighbours are missing, moves inwards by one lane a
// line and does not reach the part. So the blocks of an image meet once every kLines lines, and only with their
// neighbours. The costs of the edges do not wait for the distances: they lie ready in shared memory before the lines
// run.
#include <algorithm>

#include "common/cuda.cuh"
#include "geodesic/edges.cuh"

namespace fastprompt {
namespace {

constexpr int kLines = 16, kPart = 128, kThreads = kPart + 2 * kLines;

int parts(const GeodesicCuda& a) { return (std::max(a.ny, a.nx) + kPart - 1) / kPart; }

// How the lines of a sweep lie in an image.
struct Axis {
  int lines, lanes, line_stride, lane_stride;
  float straight, diagonal;
};

struct SharedMemory {
  float cost[kLines][3][kThreads];    // NaN: no such edge
  float value[kThreads][kLines + 1];  // distances; one float more, or a warp that walks down would hit one bank
  float line[2][kThreads + 2];        // the distances of the line before, and of this one
};

template <Metric M>
class Sweeper {
 public:
  __device__ Sweeper(const GeodesicCuda& a, int b, int set, int* finished, int round, SharedMemory& shared)
      : a_(a),
        picture_(a, b),
        out_(a.out + (int64_t(b) * a.sets + set) * a.ny * a.nx),
        finished_(finished),
        shared_(shared),
        part_(blockIdx.x),
        round_(round) {}

  // Both ways along an axis.
  __device__ void sweep(const Axis& axis) {
    const int last = (axis.lanes + kPart - 1) / kPart - 1;  // the parts behind it have no lanes here
    for (int dir = 1; dir >= -1; dir -= 2)
      for (int first = 1; first < axis.lines; first += kLines) {
        ++round_;
        if (part_ > last) continue;
        relax_lines(axis, {dir, dir > 0 ? first : axis.lines - 1 - first, min(kLines, axis.lines - first)});
        meet_some(finished_, part_, max(part_ - 1, 0), min(part_ + 1, last), round_);
      }
    meet_everybody();  // the next axis crosses the parts
  }

  __device__ void meet_everybody() { meet_some(finished_, part_, 0, gridDim.x - 1, ++round_); }
  __device__ int round() const { return round_; }

 private:
  // Some lines of a sweep: first, first + dir, ...
  struct Lines {
    int dir, first, count;
  };

  __device__ void relax_lines(const Axis& axis, const Lines& lines) {
    const int t = threadIdx.x, lane = part_ * kPart - kLines + t;
    const bool inside = lane >= 0 && lane < axis.lanes;
    move(axis, lines, [](float* distance, float* shared, bool in_image, bool) {
      *shared = in_image ? load_shared_by_blocks(distance) : infinity();
    });
    const int64_t before = pixel(axis, lines.first - lines.dir, lane);
    shared_.line[0][t + 1] = inside ? load_shared_by_blocks(out_ + before) : infinity();
    if (t < 4) shared_.line[t / 2][t % 2 * (kThreads + 1)] = infinity();
    const bool edge[3] = {inside && lane > 0, inside, inside && lane + 1 < axis.lanes};
    int64_t other = before;
#pragma unroll 1
    for (int n = 0; n < lines.count; ++n) {
      const int64_t here = other + lines.dir * axis.line_stride;
#pragma unroll
      for (int k = 0; k < 3; ++k) {
        const float step = k == 1 ? axis.straight : axis.diagonal;
        shared_.cost[n][k][t] =
            edge[k] ? edge_cost<M>(a_, picture_, here, other + (k - 1) * axis.lane_stride, step) : nan();
      }
      other = here;
    }
    __syncthreads();
#pragma unroll 2
    for (int n = 0; n < lines.count; ++n) {
      const float* from = shared_.line[n % 2] + t;
      float value = shared_.value[t][n];
      value = relax<M>(value, from[0], axis.diagonal, shared_.cost[n][0][t]);
      value = relax<M>(value, from[1], axis.straight, shared_.cost[n][1][t]);
      value = relax<M>(value, from[2], axis.diagonal, shared_.cost[n][2][t]);
      shared_.value[t][n] = shared_.line[1 - n % 2][t + 1] = value;
      __syncthreads();
    }
    move(axis, lines, [](float* distance, float* shared, bool in_image, bool own) {
      if (in_image && own) store_shared_by_blocks(distance, *shared);
    });
  }

  __device__ static int64_t pixel(const Axis& axis, int line, int lane) {
    return int64_t(line) * axis.line_stride + int64_t(lane) * axis.lane_stride;
  }

  // Calls act(distance, its place in shared memory, is it in the image, is it not of the margin) for all pixels of the
  // lines. Neighbours in memory go to neighbouring threads: along x, where the lines of a thread lie side by side, 16
  // threads take 16 lines of one lane.
  //
  // NOTE: the block beside this one may have written what the margin reads, or not yet. Either value will do: a
  // distance that has taken from the line before keeps its value when it does so again.
  template <class Act>
  __device__ void move(const Axis& axis, const Lines& lines, Act act) {
    static_assert(kThreads % kLines == 0, "a thread keeps its line along x");
    const bool turned = axis.lane_stride != 1;
    const int step = turned ? kThreads / kLines : 1;  // lanes (or lines) from one pixel of a thread to its next
    int t = turned ? threadIdx.x / kLines : threadIdx.x, n = turned ? threadIdx.x % kLines : 0;
    float* distance = out_ + pixel(axis, lines.first + lines.dir * n, part_ * kPart - kLines + t);
    const ptrdiff_t stride = turned ? ptrdiff_t(step) * axis.lane_stride : ptrdiff_t(lines.dir) * axis.line_stride;
#pragma unroll 4
    for (int k = 0; k < kLines; ++k, distance += stride, (turned ? t : n) += step) {
      const unsigned lane = part_ * kPart - kLines + t;
      act(distance, &shared_.value[t][n], n < lines.count && lane < unsigned(axis.lanes),
          t >= kLines && t < kThreads - kLines);
    }
  }

  const GeodesicCuda& a_;
  const Picture picture_;
  float* const out_;
  int* const finished_;
  SharedMemory& shared_;
  const int part_;
  int round_;
};

// Grid: (parts of an image, images that are worked on at a time); all blocks must be resident.
template <Metric M>
__global__ void __launch_bounds__(kThreads, 3) raster_kernel(const __grid_constant__ GeodesicCuda a) {
  __shared__ SharedMemory shared;
  const int64_t pixels = int64_t(a.ny) * a.nx, stride = int64_t(gridDim.x) * kThreads;
  const int64_t mine = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const Steps steps = edge_steps<M>(a);
  const Axis along_y{a.ny, a.nx, a.nx, 1, steps.y, steps.diagonal},
      along_x{a.nx, a.ny, 1, a.nx, steps.x, steps.diagonal};
  int round = 0;
  for (int image = blockIdx.y; image < a.batch * a.sets; image += gridDim.y) {
    const int b = image / a.sets, set = image % a.sets;
    float* out = a.out + image * pixels;
    Sweeper<M> sweeper(a, b, set, a.workspace + blockIdx.y * gridDim.x, round, shared);
    for (int64_t p = mine; p < pixels; p += stride) store_shared_by_blocks(out + p, start_value(a, b, set, p));
    sweeper.meet_everybody();
    for (int n = 0; n < a.iterations; ++n) sweeper.sweep(along_y), sweeper.sweep(along_x);
    for (int64_t p = mine; a.limit < infinity() && p < pixels; p += stride)
      if (load_shared_by_blocks(out + p) > a.limit) store_shared_by_blocks(out + p, infinity());
    round = sweeper.round();
  }
}

template <Metric M>
void launch(GeodesicCuda a, cudaStream_t stream) {
  const char* what = "geodesic_raster_cuda";
  if (a.volume) throw std::invalid_argument("geodesic_raster_cuda: volumes are not implemented");
  const int across = parts(a), room = resident_blocks(raster_kernel<M>, kThreads, what);
  if (across > room) throw std::runtime_error("geodesic_raster_cuda: the image is too large for this device");
  const dim3 grid(across, std::min(a.batch * a.sets, room / across));
  check_cuda(cudaMemsetAsync(a.workspace, 0, sizeof(int) * grid.x * grid.y, stream), what);
  void* arguments[] = {&a};
  check_cuda(cudaLaunchCooperativeKernel(raster_kernel<M>, grid, dim3(kThreads), arguments, 0, stream), what);
}

}  // namespace

int64_t geodesic_raster_cuda_workspace(const GeodesicCuda& a) { return int64_t(parts(a)) * a.batch * a.sets; }

void geodesic_raster_cuda(const GeodesicCuda& a, void* stream) {
  with_metric(a, [&](auto metric) { launch<decltype(metric)::value>(a, static_cast<cudaStream_t>(stream)); });
}

}  // namespace fastprompt
