// Raster scan of pictures in the CPU's order: along either axis one sweep forth and one back, each pixel taking from
// the line before it. Both axes sweep lines that lie in memory as rows: what an edge costs is written once for each,
// and the distances are turned between them.
//
// A warp owns a tile of lanes, which are the pixels of a line, and sweeps kLines lines (a round) with a margin of
// kLines lanes on either side: what is wrong at the end of such a margin, where the neighbours are missing, moves
// inwards by one lane a line and does not reach the tile. So a warp hears from its neighbours once a round, and only
// the last line: all else was there before the launch, and is on its way to shared memory kStages - 1 groups of lines
// early.
#include "geodesic/cuda_raster.h"
#include "geodesic/raster_layout.cuh"

namespace fastprompt {
namespace {

constexpr unsigned kAll = 0xffffffffu;

// A distance and the number of the sweep that it is from, in one word: who reads the number has the distance, too, and
// no fence is needed.
struct alignas(16) TwoWords {
  uint64_t first, second;
};

__device__ uint64_t word(float distance, int sweep) {
  return uint64_t(unsigned(sweep)) << 32 | unsigned(__float_as_int(distance));
}
__device__ bool is_of(uint64_t word, int sweep) { return int(word >> 32) == sweep; }
__device__ float distance_of(uint64_t word) { return __int_as_float(int(word)); }

__device__ TwoWords load_words(const uint64_t* p) {
  TwoWords w;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];" : "=l"(w.first), "=l"(w.second) : "l"(p) : "memory");
  return w;
}
__device__ void store_words(uint64_t* p, const TwoWords& w) {
  asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(p), "l"(w.first), "l"(w.second) : "memory");
}

// 16 bytes to shared memory, for the thread that asks for them. Without cp.async it waits for them.
__device__ void copy_early(float4* to, const float* from) {
#if __CUDA_ARCH__ >= 800
  const unsigned target = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(from) : "memory");
#else
  *to = __ldg(reinterpret_cast<const float4*>(from));
#endif
}
__device__ void end_group() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// All but the newest groups have arrived.
template <int Newest>
__device__ void await_groups() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Newest) : "memory");
#endif
}

// What a line is made of: distances as they were, then what the edges to it cost from straight ahead, from the left and
// from the right.
enum Part { kDistance, kStraight, kFromLeft, kFromRight, kParts };

// Each thread reads what it has asked for itself, so that nobody waits for others.
using Stage = float4[kGroup][kParts][kWarp];

// One sweep of all images: `to` from `from`.
struct Sweep {
  GeodesicCuda a;
  RasterLines lines;
  const float* costs;  // [batch][3][lines][pitch]: RasterCosts
  const float* from;   // [images][lines][pitch]
  float* to;
  uint64_t* words;  // [images][rounds][tiles * kTile]: the last line of a round
  int number;       // 1, 2, ...
  bool back, along_x;
};

template <Metric M>
class Sweeper {
 public:
  __device__ Sweeper(const Sweep& s, Stage* stages)
      : s_(s),
        stages_(stages),
        lines_(s.lines),
        columns_(s.a.batch * s.a.sets * s.lines.tiles()),
        stride_(s.back ? -int64_t(s.lines.pitch()) : s.lines.pitch()),
        straight_(edge_step<M>(s.a, square(s.along_x))),
        diagonal_(edge_step<M>(s.a, square(s.along_x) + square(!s.along_x))) {}

  __device__ void run() {
    Place now = place(blockIdx.x, 1), ahead = now;
#pragma unroll 1
    for (int n = 0; n < kStages - 1; ++n) ahead = fetch(ahead, n);
    float value[kEach] = {};  // of the line before
    int stage = 0;
#pragma unroll 1
    while (now.line < lines_.count) {
      ahead = fetch(ahead, stage == 0 ? kStages - 1 : stage - 1);
      await_groups<kStages - 1>();
      if ((now.line - 1) % kLines == 0) line_before(now, value);
#pragma unroll
      for (int k = 0; k < kGroup; ++k) {
        relax_line(stages_[stage][k], value);
        if (is_own() && now.line + k < lines_.count) store(now, k, value);
      }
      if ((now.line + kGroup - 1) % kLines == 0 && now.line + kGroup < lines_.count) leave(now, value);
      now = after(now);
      stage = stage + 1 < kStages ? stage + 1 : 0;
    }
  }

 private:
  // A group of lines: line, line + 1, ... of a column, which is a tile of an image. Line 0 is where the sweep begins.
  struct Place {
    int column, line;
    int64_t cost, distance;  // offsets of the first line, for this thread
  };

  __device__ Place place(int column, int line) const {
    const int image = column / lines_.tiles(), tile = column % lines_.tiles();
    const int64_t lane = int64_t(tile) * kTile + kEach * threadIdx.x;
    const int there = s_.back ? lines_.count - 1 - line : line, gap = s_.back ? there : there - 1;
    return {column, line, image / s_.a.sets * 3 * lines_.plane() + int64_t(gap) * lines_.pitch() + lane,
            image * lines_.plane() + int64_t(there) * lines_.pitch() + lane};
  }

  // Some more lines, or the next column's of this round, or the first column's of the next round.
  __device__ Place after(const Place& p) const {
    const int line = p.line + kGroup, first = (p.line - 1) / kLines * kLines + 1;
    if (line < first + kLines && line < lines_.count)
      return {p.column, line, p.cost + kGroup * stride_, p.distance + kGroup * stride_};
    const int column = p.column + gridDim.x;
    return column < columns_ ? place(column, first) : place(blockIdx.x, first + kLines);
  }

  __device__ static float4 load4(const float* p) { return __ldg(reinterpret_cast<const float4*>(p)); }

  // Asks for the lines of a place; the place after it.
  __device__ Place fetch(const Place& p, int stage) const {
    const int64_t from_left = (s_.back ? 2 : 1) * lines_.plane(), from_right = (s_.back ? 1 : 2) * lines_.plane();
    const float *from = s_.from + p.distance, *cost = s_.costs + p.cost;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (p.line + k < lines_.count) {
        float4(*line)[kWarp] = stages_[stage][k];
        copy_early(&line[kDistance][threadIdx.x], from);
        copy_early(&line[kStraight][threadIdx.x], cost);
        copy_early(&line[kFromLeft][threadIdx.x], cost + from_left);
        copy_early(&line[kFromRight][threadIdx.x], cost + from_right);
      }
      from += stride_, cost += stride_;
    }
    end_group();
    return p.line < lines_.count ? after(p) : p;
  }

  __device__ void store(const Place& p, int k, const float (&value)[kEach]) const {
    float* to = s_.to + p.distance + k * stride_;
    *reinterpret_cast<float4*>(to) = make_float4(value[0], value[1], value[2], value[3]);
  }

  // Not of the margin.
  __device__ static bool is_own() { return unsigned(kEach * threadIdx.x - kLines) < unsigned(kTile); }

  // The line before those of a place, which is the first of its round.
  __device__ void line_before(const Place& p, float (&before)[kEach]) const {
    if (p.line == 1) {
      const float4 first = load4(s_.from + p.distance - stride_);
      before[0] = first.x, before[1] = first.y, before[2] = first.z, before[3] = first.w;
      if (is_own()) store(p, -1, before);
    } else if (uint64_t* words = words_of(p, (p.line - 1) / kLines - 1)) {
      TwoWords low, high;
      do low = load_words(words), high = load_words(words + 2);
      while (!(is_of(low.first, s_.number) && is_of(low.second, s_.number) && is_of(high.first, s_.number) &&
               is_of(high.second, s_.number)));
      before[0] = distance_of(low.first), before[1] = distance_of(low.second);
      before[2] = distance_of(high.first), before[3] = distance_of(high.second);
    }
    __syncwarp();
  }

  // The last line of a round, for the neighbours and for this warp.
  __device__ void leave(const Place& p, const float (&value)[kEach]) const {
    if (!is_own()) return;
    uint64_t* words = words_of(p, (p.line - 1) / kLines);
    store_words(words, {word(value[0], s_.number), word(value[1], s_.number)});
    store_words(words + 2, {word(value[2], s_.number), word(value[3], s_.number)});
  }

  // This thread's of a round; nullptr where there is no tile.
  __device__ uint64_t* words_of(const Place& p, int round) const {
    const int image = p.column / lines_.tiles(), tile = p.column % lines_.tiles();
    const int lane = tile * kTile + int(kEach * threadIdx.x) - kLines, width = lines_.tiles() * kTile;
    if (unsigned(lane) >= unsigned(width)) return nullptr;
    return s_.words + (int64_t(image) * lines_.rounds() + round) * width + lane;
  }

  // relax() of the three pixels of the line before, which is `value` and becomes this line. What leaves to the right
  // is added up by the thread that has the cost of that edge. The order in which the three are compared makes no
  // difference: none is -0, as steps and costs are not, and fminf drops a NaN as relax() does.
  __device__ void relax_line(const float4 (&line)[kParts][kWarp], float (&value)[kEach]) const {
    float part[kParts][kEach];
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const float4 four = line[p][threadIdx.x];
      part[p][0] = four.x, part[p][1] = four.y, part[p][2] = four.z, part[p][3] = four.w;
    }
    float left[kEach + 1], right[kEach + 1];  // left[i + 1]: reaches lane i + 1
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      right[i] = step_away<M>(value[i], diagonal_);
      left[i + 1] = right[i] + part[kFromLeft][i];
    }
    left[0] = __shfl_up_sync(kAll, left[kEach], 1);
    right[kEach] = __shfl_down_sync(kAll, right[0], 1);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const float ahead = step_away<M>(value[i], straight_) + part[kStraight][i];
      const float reached = fminf(fminf(ahead, left[i]), right[i + 1] + part[kFromRight][i]);
      value[i] = reached < part[kDistance][i] ? reached : part[kDistance][i];
    }
  }

  __device__ float square(bool x) const { return s_.a.spacing[x ? 2 : 1] * s_.a.spacing[x ? 2 : 1]; }

  const Sweep& s_;
  Stage* const stages_;
  const RasterLines lines_;
  const int columns_;
  const int64_t stride_;
  const float straight_, diagonal_;
};

// All blocks must be resident: they wait for one another.
template <Metric M>
__global__ void __launch_bounds__(kWarp) raster_sweep_kernel(const __grid_constant__ Sweep s) {
  __shared__ Stage stages[kStages];
  Sweeper<M>(s, stages).run();
}

template <Metric M>
class Launches {
 public:
  Launches(const GeodesicCuda& a, cudaStream_t stream) : a_(a), workspace_(a), stream_(stream) {}

  void run() {
    prepare_raster<M>(a_, workspace_, stream_);
    for (int n = 0; n < std::max(a_.iterations, 1); ++n) {
      if (n < a_.iterations) sweep(false);
      turn_raster(a_, workspace_, false, false, stream_);
      if (n < a_.iterations) sweep(true);
      turn_raster(a_, workspace_, true, n + 1 >= a_.iterations, stream_);
    }
  }

 private:
  // Forth, then back: the distances are where they were.
  void sweep(bool along_x) {
    const RasterLines lines = along_x ? workspace_.columns : workspace_.rows;
    float* first = workspace_.distances[along_x];
    float* second = workspace_.distances[!along_x];
    if (lines.count == 1) return;
    const int blocks = std::min(a_.batch * a_.sets * lines.tiles(), resident_blocks(kernel_, kWarp, kRasterName));
    for (const bool back : {false, true}) {
      Sweep s{a_,
              lines,
              workspace_.costs[along_x],
              back ? second : first,
              back ? first : second,
              workspace_.words,
              ++number_,
              back,
              along_x};
      void* arguments[] = {&s};
      check_cuda(cudaLaunchCooperativeKernel(kernel_, dim3(blocks), dim3(kWarp), arguments, 0, stream_), kRasterName);
    }
  }

  static constexpr auto kernel_ = raster_sweep_kernel<M>;
  const GeodesicCuda& a_;
  const RasterWorkspace workspace_;
  const cudaStream_t stream_;
  int number_ = 0;
};

}  // namespace

int64_t geodesic_raster_cuda_workspace(const GeodesicCuda& a) {
  return a.volume ? geodesic_raster_volume_cuda_workspace(a) : RasterWorkspace(a).ints;
}

void geodesic_raster_cuda(const GeodesicCuda& a, void* stream) {
  if (a.volume) return geodesic_raster_volume_cuda(a, stream);
  with_metric_and_grid(
      a, [&](auto metric, auto) { Launches<decltype(metric)::value>(a, static_cast<cudaStream_t>(stream)).run(); });
}

}  // namespace fastprompt
