// Gradient of the exact distance, with the forest of gradient.cpp: every pixel takes its parent by the same rule, and
// what arrives at a pixel goes on to its parent. A pixel is done by the thread that did the last of its children, which
// adds them up in the order of the neighbours: the result does not depend on who came when.
//
// One launch, whose blocks meet between the steps.
#include <algorithm>

#include "common/cuda.cuh"
#include "geodesic/edges.cuh"

namespace fastprompt {
namespace {

constexpr int kThreads = 256, kCounters = 4;
constexpr int kNoParent = 255, kUnknown = -1, kOutside = -2;

// Behind the counters in the workspace, for every pixel of every seed set.
struct Forest {
  int *arrived, *count;  // count[3]: pixels that got their level in a round, by its number modulo 3
  double* flow;
  int* level;  // in a plateau; later: children that are not done yet
  unsigned char* parent;

  __device__ Forest(int* workspace, int64_t all)
      : arrived(workspace),
        count(workspace + 1),
        flow(reinterpret_cast<double*>(workspace + kCounters)),
        level(reinterpret_cast<int*>(flow + all)),
        parent(reinterpret_cast<unsigned char*>(level + all)) {}
};

template <Metric M, bool Volume>
class Grower {
 public:
  __device__ Grower(const GeodesicGradientCuda& g, const Forest& forest)
      : g_(g),
        a_(g.forward),
        forest_(forest),
        pixels_(int64_t(a_.nz) * a_.ny * a_.nx),
        all_(pixels_ * a_.batch * a_.sets) {}

  __device__ void run() {
    int meetings = 0;
    const auto meet = [&] {
      __syncthreads();
      meet_all(forest_.arrived, ++meetings * gridDim.x);
    };
    each(all_, [&](int64_t i) { begin(i); });
    meet();
    for (int round = 1;; ++round) {
      if (threadIdx.x == 0 && blockIdx.x == 0) store_shared_by_blocks(forest_.count + (round + 1) % 3, 0);
      int spread = 0;
      each(all_, [&](int64_t i) { spread |= level_of_plateau(i, round); });
      if (__syncthreads_or(spread) && threadIdx.x == 0) atomicAdd(forest_.count + round % 3, 1);
      meet();
      if (load_shared_by_blocks(forest_.count + round % 3) == 0) break;
    }
    each(all_, [&](int64_t i) { choose_parent(i); });
    meet();
    each(all_, [&](int64_t i) { count_children(i); });
    meet();
    each(all_, [&](int64_t i) { descend(i); });
    meet();
    each(pixels_ * a_.batch, [&](int64_t i) { image_gradient(i / pixels_, i % pixels_); });
  }

 private:
  static constexpr int kNeighbours = Volume ? 26 : 8;
  template <class Visit>
  __device__ static void each(int64_t count, Visit visit) {
    for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads)
      visit(i);
  }

  // visit(n, q, step) for the neighbours q of p in the image, row by row; n and kNeighbours - 1 - n are opposite.
  template <class Visit>
  __device__ void neighbours(int64_t p, Visit visit) const {
    const int x = p % a_.nx, y = p / a_.nx % a_.ny, z = p / a_.nx / a_.ny;
#pragma unroll 1
    for (int n = 0; n < kNeighbours; ++n) {
      const int number = n + (n >= kNeighbours / 2) + (Volume ? 0 : 9);
      const int dz = number / 9 - 1, dy = number / 3 % 3 - 1, dx = number % 3 - 1;
      if (unsigned(z + dz) >= unsigned(a_.nz) || unsigned(y + dy) >= unsigned(a_.ny) ||
          unsigned(x + dx) >= unsigned(a_.nx))
        continue;
      visit(n, p + (int64_t(dz) * a_.ny + dy) * a_.nx + dx, dz, dy, dx);
    }
  }

  __device__ float distance(int64_t i) const { return a_.out[i]; }
  __device__ int image_of(int64_t i) const { return static_cast<int>(i / pixels_ / a_.sets); }
  __device__ float start(int64_t i) const {
    return start_value(a_, image_of(i), static_cast<int>(i / pixels_ % a_.sets), i % pixels_);
  }

  __device__ float squared_length(int dz, int dy, int dx) const {
    const float z = a_.spacing[0] * a_.spacing[0], y = a_.spacing[1] * a_.spacing[1];
    const float x = a_.spacing[2] * a_.spacing[2];
    return (dz ? z : 0.f) + (dy ? y : 0.f) + (dx ? x : 0.f);
  }

  __device__ float difference(int b, int c, int64_t p, int64_t q) const {
    const float* channel = a_.image + (int64_t(b) * a_.channels + c) * pixels_;
    const uint8_t* barrier = a_.barrier && c == 0 ? a_.barrier + b * pixels_ : nullptr;
    return image_value(channel, barrier, p) - image_value(channel, barrier, q);
  }

  __device__ float sum(int b, int64_t p, int64_t q) const {
    float sum = 0.f;
    for (int c = 0; c < a_.channels; ++c) sum += edge_term<M>(difference(b, c, p, q));
    return sum;
  }

  // visit(n, neighbour) for those through which the shortest paths to pixel i go.
  template <class Visit>
  __device__ void tight(int64_t i, Visit visit) const {
    const int64_t p = i % pixels_, first = i - p;
    const float here = distance(i);
    neighbours(p, [&](int n, int64_t q, int dz, int dy, int dx) {
      const float step = edge_step<M>(a_, squared_length(dz, dy, dx));
      const float cost = edge_cost<M>(a_, sum(image_of(i), q, p), step);
      if (relax<M>(infinity(), distance(first + q), step, cost) == here) visit(n, first + q);
    });
  }

  // The level is 0 at roots and where a path comes from a lower distance, else the edges to the nearest such pixel of
  // the same distance: edges may cost nothing.
  __device__ void begin(int64_t i) const {
    int level = kOutside;
    const float here = distance(i);
    if (here < infinity()) {
      level = here == start(i) ? 0 : kUnknown;
      if (level == kUnknown)
        tight(i, [&](int, int64_t q) {
          if (distance(q) < here) level = 0;
        });
    }
    store_shared_by_blocks(forest_.level + i, level);
  }

  __device__ bool level_of_plateau(int64_t i, int round) const {
    if (load_shared_by_blocks(forest_.level + i) != kUnknown) return false;
    bool reached = false;
    tight(i, [&](int, int64_t q) { reached |= load_shared_by_blocks(forest_.level + q) == round - 1; });
    if (reached) store_shared_by_blocks(forest_.level + i, round);
    return reached;
  }

  // The first by (distance, level, number), in which order Dijkstra's algorithm settles them.
  __device__ void choose_parent(int64_t i) const {
    int parent = kNoParent, best_level = 0;
    float best = infinity();
    if (const float here = distance(i); here < infinity() && here != start(i))
      tight(i, [&](int n, int64_t q) {
        const int level = load_shared_by_blocks(forest_.level + q);
        const float d = distance(q);
        if (d < best || (d == best && level < best_level)) parent = n, best = d, best_level = level;
      });
    forest_.parent[i] = parent;
  }

  __device__ int parent(int64_t i) const { return *static_cast<volatile unsigned char*>(forest_.parent + i); }

  // visit(child) in the order of the neighbours.
  template <class Visit>
  __device__ void children(int64_t i, Visit visit) const {
    const int64_t p = i % pixels_, first = i - p;
    neighbours(p, [&](int n, int64_t q, int, int, int) {
      if (parent(first + q) == kNeighbours - 1 - n) visit(first + q);
    });
  }

  __device__ int64_t parent_of(int64_t i) const {
    const int64_t p = i % pixels_;
    const int direction = parent(i);
    int64_t found = -1;
    neighbours(p, [&](int n, int64_t q, int, int, int) {
      if (n == direction) found = i - p + q;
    });
    return found;
  }

  __device__ void count_children(int64_t i) const {
    int count = 0;
    children(i, [&](int64_t) { ++count; });
    store_shared_by_blocks(forest_.level + i, count);
  }

  // dL/dD of pixel i; a signed distance subtracts the one of every other set.
  __device__ double own(int64_t i) const {
    if (!(distance(i) < infinity())) return 0.0;
    const int64_t set = i / pixels_, p = i % pixels_;
    if (!a_.two_sided) return g_.grad[i];
    const double grad = g_.grad[set / 2 * pixels_ + p];
    return set % 2 ? -grad : grad;
  }

  __device__ void descend(int64_t i) const {
    bool leaf = true;
    children(i, [&](int64_t) { leaf = false; });
    while (leaf) {
      double flow = own(i);
      children(i, [&](int64_t child) { flow += load_shared_by_blocks(forest_.flow + child); });
      store_shared_by_blocks(forest_.flow + i, flow);
      const int64_t q = parent_of(i);
      g_.grad_start[i] = q < 0 ? static_cast<float>(flow) : 0.f;
      if (q < 0) return;
      __threadfence();
      if (atomicSub(forest_.level + q, 1) != 1) return;
      __threadfence();
      i = q;
    }
  }

  // All edges of a pixel, of all seed sets, in one order.
  __device__ void image_gradient(int64_t b, int64_t p) const {
    float* grad = g_.grad_image + b * a_.channels * pixels_ + p;
    for (int c = 0; c < a_.channels; ++c) grad[c * pixels_] = 0.f;
    for (int set = 0; set < a_.sets; ++set) {
      const int64_t first = (b * a_.sets + set) * pixels_;
      if (const int64_t q = parent_of(first + p); q >= 0) edge_gradient(b, p, q - first, first + p, grad);
      children(first + p, [&](int64_t child) { edge_gradient(b, p, child - first, child, grad); });
    }
  }

  // d cost / d I_c(p) = slope * (sign or I_c(p) - I_c(q)), times what flows along the edge from its child.
  __device__ void edge_gradient(int b, int64_t p, int64_t q, int64_t child, float* grad) const {
    const double flow = load_shared_by_blocks(forest_.flow + child);
    if (flow == 0.0) return;
    double slope = a_.grad_weight;
    if (M != Metric::fastgeodis) {
      const float norm = sqrtf(sum(b, p, q));
      if (norm == 0.f) return;
      const double shifted = norm + 1e-5, lambda = a_.grad_weight;
      const double speed = static_cast<float>((1.0 - lambda) + lambda / shifted);
      const int64_t row = a_.nx, plane = row * a_.ny;
      const float length =
          sqrtf(squared_length(p / plane != q / plane, p / row % a_.ny != q / row % a_.ny, p % row != q % row));
      slope = M == Metric::geodistk_fm ? 1.0 : lambda / (shifted * shifted * speed * speed);
      slope *= length / norm;
    }
    for (int c = 0; c < a_.channels; ++c) {
      const float d = difference(b, c, p, q);
      grad[c * pixels_] += static_cast<float>(flow * slope * (M == Metric::fastgeodis ? (d > 0.f) - (d < 0.f) : d));
    }
  }

  const GeodesicGradientCuda& g_;
  const GeodesicCuda& a_;
  const Forest forest_;
  const int64_t pixels_, all_;
};

template <Metric M, bool Volume>
__global__ void __launch_bounds__(kThreads, 2) gradient_kernel(const __grid_constant__ GeodesicGradientCuda g) {
  const GeodesicCuda& a = g.forward;
  const Forest forest(a.workspace, int64_t(a.nz) * a.ny * a.nx * a.batch * a.sets);
  Grower<M, Volume>(g, forest).run();
}

template <Metric M, bool Volume>
void launch(GeodesicGradientCuda g, cudaStream_t stream) {
  const char* what = "geodesic_gradient_cuda";
  const GeodesicCuda& a = g.forward;
  const int64_t needed = (int64_t(a.nz) * a.ny * a.nx * a.batch * a.sets + kThreads - 1) / kThreads;
  const int64_t room = resident_blocks(gradient_kernel<M, Volume>, kThreads, what);
  check_cuda(cudaMemsetAsync(a.workspace, 0, sizeof(int) * kCounters, stream), what);
  void* arguments[] = {&g};
  check_cuda(cudaLaunchCooperativeKernel(gradient_kernel<M, Volume>, dim3(std::min(needed, room)), dim3(kThreads),
                                         arguments, 0, stream),
             what);
}

}  // namespace

int64_t geodesic_gradient_cuda_workspace(const GeodesicCuda& a) {
  const int64_t all = int64_t(a.nz) * a.ny * a.nx * a.batch * a.sets;
  return kCounters + 3 * all + (all + 3) / 4;
}

void geodesic_gradient_cuda(const GeodesicGradientCuda& g, void* stream) {
  with_metric_and_grid(g.forward, [&](auto metric, auto volume) {
    launch<decltype(metric)::value, decltype(volume)::value>(g, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace fastprompt
