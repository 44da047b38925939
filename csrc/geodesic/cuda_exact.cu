// The exact distance of one tile; exact_rounds.cuh has the tiles' turns.
#include "geodesic/exact_rounds.cuh"

namespace fastprompt {
namespace {

// A thread has kStrip pixels, one below the other: 4 of a picture's tile, whose costs fit its registers; 1 of a
// volume's, with 26 costs.
template <Metric M, bool Volume>
class ExactTile {
 public:
  static constexpr int kDepth = Volume ? 8 : 1, kHeight = Volume ? 8 : 32, kWidth = Volume ? 8 : 32;
  static constexpr int kStrip = Volume ? 1 : 4, kThreads = kDepth * kHeight * kWidth / kStrip;
  static constexpr int kBlocksPerProcessor = Volume ? 1 : 2;
  using Frame = Halo<ExactTile>;

  __device__ ExactTile(const GeodesicCuda& a, const Frame& halo, int image, SharedMemory<ExactTile>& shared)
      : a_(a),
        halo_(halo),
        shared_(shared),
        b_(image / a.sets),
        set_(image % a.sets),
        pixels_(int64_t(a.nz) * a.ny * a.nx),
        out_(a.out + image * pixels_),
        z_(threadIdx.x / kWidth / (kHeight / kStrip)),
        y_(threadIdx.x / kWidth % (kHeight / kStrip) * kStrip),
        x_(threadIdx.x % kWidth) {}

  // Returns the sides that changed, to all threads.
  __device__ int run(bool first) {
    const bool idle = load(first);
    float value[kStrip], before[kStrip];
#pragma unroll
    for (int k = 0; k < kStrip; ++k) value[k] = before[k] = *at(0, k, 0);
    if (!idle) {
      float cost[kStrip][kNeighbours];
      costs(cost);
      bool changed;
      do changed = relax_strip(cost, value);
      while (__syncthreads_or(changed));
    }
    return store(first, value, before);
  }

 private:
  static constexpr int kNeighbours = Volume ? 26 : 8;
  // The n-th neighbour, row by row.
  __device__ static constexpr int number(int n) { return Volume ? n + (n > 12) : n + (n > 3) + 9; }
  __device__ static constexpr int dz(int n) { return number(n) / 9 - 1; }
  __device__ static constexpr int dy(int n) { return number(n) / 3 % 3 - 1; }
  __device__ static constexpr int dx(int n) { return number(n) % 3 - 1; }
  __device__ static constexpr int offset(int n) { return dz(n) * Frame::kPlane + dy(n) * Frame::kRow + dx(n); }

  // Place (z, y + k, x) from this thread's first pixel, in shared memory.
  __device__ int place(int z, int k, int x) const {
    return Frame::kFirst + (z_ + z) * Frame::kPlane + (y_ + k) * Frame::kRow + x_ + x;
  }
  __device__ volatile float* at(int z, int k, int x) const { return shared_.distance + place(z, k, x); }

  // Nobody improves anybody where all distances are the start value of what is no seed: most tiles in the first round.
  __device__ bool load(bool first) {
    bool idle = first;
    halo_.stage(shared_.distance, infinity(), [&](int64_t p) {
      const float d = first ? start_value(a_, b_, set_, p) : load_shared_by_blocks(out_ + p);
      idle &= d == a_.v;
      return d;
    });
    if (threadIdx.x == 0) shared_.sides = 0;
    return !__syncthreads_or(!idle);
  }

  // NaN where there is no edge.
  __device__ void costs(float (&cost)[kStrip][kNeighbours]) const {
#pragma unroll
    for (int k = 0; k < kStrip; ++k)
#pragma unroll
      for (int n = 0; n < kNeighbours; ++n) cost[k][n] = 0.f;
#pragma unroll 1
    for (int c = 0; c < a_.channels; ++c) {
      const float* channel = a_.image + (int64_t(b_) * a_.channels + c) * pixels_;
      const uint8_t* barrier = a_.barrier && c == 0 ? a_.barrier + b_ * pixels_ : nullptr;
      if (c > 0) __syncthreads();
      halo_.stage(shared_.image, nan(), [&](int64_t p) { return image_value(channel, barrier, p); });
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kStrip; ++k) {
        const float* here = shared_.image + place(0, k, 0);
#pragma unroll
        for (int n = 0; n < kNeighbours; ++n) cost[k][n] += edge_term<M>(*here - here[offset(n)]);
      }
    }
#pragma unroll
    for (int k = 0; k < kStrip; ++k)
#pragma unroll
      for (int n = 0; n < kNeighbours; ++n) cost[k][n] = edge_cost<M>(a_, cost[k][n], step(dz(n), dy(n), dx(n)));
  }

  // Squared spacings in one fixed order of additions, whatever the direction.
  __device__ float step(int dz, int dy, int dx) const {
    const float z = a_.spacing[0] * a_.spacing[0], y = a_.spacing[1] * a_.spacing[1];
    const float x = a_.spacing[2] * a_.spacing[2];
    return edge_step<M>(a_, (dz ? z : 0.f) + (dy ? y : 0.f) + (dx ? x : 0.f));
  }

  // One pass over the pixels of a thread. Threads read what others write at the same time: the old or the new value,
  // either is a distance that some path has.
  __device__ bool relax_strip(const float (&cost)[kStrip][kNeighbours], float (&value)[kStrip]) {
    if constexpr (Volume) {
      float v = value[0];
#pragma unroll
      for (int n = 0; n < kNeighbours; ++n)
        v = relax<M>(v, at(0, 0, 0)[offset(n)], step(dz(n), dy(n), dx(n)), cost[0][n]);
      return keep(0, v, value);
    } else {
      return relax_down_and_up(cost, value);
    }
  }

  __device__ bool relax_down_and_up(const float (&cost)[kStrip][kNeighbours], float (&value)[kStrip]) {
    const float along_y = step(0, 1, 0), along_x = step(0, 0, 1), diagonal = step(0, 1, 1);
    float fresh[kStrip], above[3] = {*at(0, -1, -1), *at(0, -1, 0), *at(0, -1, 1)};
#pragma unroll
    for (int k = 0; k < kStrip; ++k) {
      const float left = *at(0, k, -1), right = *at(0, k, 1);
      float v = value[k];
      v = relax<M>(v, above[0], diagonal, cost[k][0]);
      v = relax<M>(v, above[1], along_y, cost[k][1]);
      v = relax<M>(v, above[2], diagonal, cost[k][2]);
      v = relax<M>(v, left, along_x, cost[k][3]);
      v = relax<M>(v, right, along_x, cost[k][4]);
      fresh[k] = v;
      above[0] = left, above[1] = v, above[2] = right;
    }
    float below[3] = {*at(0, kStrip, -1), *at(0, kStrip, 0), *at(0, kStrip, 1)};
    bool changed = false;
#pragma unroll
    for (int k = kStrip - 1; k >= 0; --k) {
      float v = fresh[k];
      v = relax<M>(v, below[0], diagonal, cost[k][5]);
      v = relax<M>(v, below[1], along_y, cost[k][6]);
      v = relax<M>(v, below[2], diagonal, cost[k][7]);
      changed |= keep(k, v, value);
      below[0] = *at(0, k, -1), below[1] = v, below[2] = *at(0, k, 1);
    }
    return changed;
  }

  __device__ bool keep(int k, float v, float (&value)[kStrip]) {
    if (!(v < value[k])) return false;
    *at(0, k, 0) = value[k] = v;
    return true;
  }

  // Bit 0, 1, 2: what changes here is seen by the tile before, by this one, by the tile behind.
  template <int Size>
  __device__ static int seen_by(int place) {
    return 2 | (Size > 1 && place == 0) | (Size > 1 && place == Size - 1) << 2;
  }

  __device__ int store(bool first, const float (&value)[kStrip], const float (&before)[kStrip]) {
    int sides = 0;
#pragma unroll
    for (int k = 0; k < kStrip; ++k) {
      const bool changed = value[k] < before[k];
      if ((first || changed) && halo_.inside(z_, y_ + k, x_))
        store_shared_by_blocks(out_ + halo_.pixel(z_, y_ + k, x_), value[k]);
      if (!changed || value[k] > a_.limit) continue;  // what is too far makes nothing near
      const int row = seen_by<kWidth>(x_), plane = spread<3>(seen_by<kHeight>(y_ + k)) * row;
      sides |= spread<9>(seen_by<kDepth>(z_)) * plane;
    }
    if (sides & ~(1 << 13)) atomicOr(&shared_.sides, sides);
    __syncthreads();
    return shared_.sides;
  }

  // Three bits, `distance` apart.
  template <int Distance>
  __device__ static int spread(int bits) {
    return (bits & 1) | (bits >> 1 & 1) << Distance | (bits >> 2 & 1) << 2 * Distance;
  }

  const GeodesicCuda& a_;
  const Frame& halo_;
  SharedMemory<ExactTile>& shared_;
  const int b_, set_;
  const int64_t pixels_;
  float* const out_;
  const int z_, y_, x_;  // first pixel of this thread, in the tile
};

}  // namespace

int64_t geodesic_exact_cuda_workspace(const GeodesicCuda& a) {
  constexpr Metric any = Metric::fastgeodis;
  return a.volume ? exact_workspace<ExactTile<any, true>>(a) : exact_workspace<ExactTile<any, false>>(a);
}

void geodesic_exact_cuda(const GeodesicCuda& a, void* stream) {
  with_metric_and_grid(a, [&](auto metric, auto volume) {
    launch_exact<ExactTile<decltype(metric)::value, decltype(volume)::value>>(a, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace fastprompt
