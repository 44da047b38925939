// Toivanen's order: in place, pixel by pixel, forth and back. What comes from other rows is data-parallel; only the
// step from the pixel beside it is a serial chain, so each row takes its other neighbours first, then runs the chain.
#include "common/interrupt.h"
#include "geodesic/block.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

struct Neighbour {
  int z, y;      // the other row, seen in the forward pass
  int from, to;  // its pixels x + from … x + to
};
// NOTE: forward in a volume also looks at plane z + 1, which holds the values of the pass before: Toivanen's order.
constexpr Neighbour kVolume[] = {{-1, -1, -1, 1}, {-1, 0, -1, 0}, {0, -1, -1, 1}, {1, -1, -1, 1}, {1, 0, -1, -1}};
constexpr Neighbour kPlane[] = {{0, -1, -1, 1}};

template <class M, int C>
class Toivanen {
 public:
  Toivanen(const Geodesic& a, int64_t b, int64_t set)
      : a_(a),
        b_(b),
        set_(set),
        metric_(a),
        block_(a.nz, a.ny, a.nx, a.volume, a.channels, 1),
        beside_(1, 2, a.nx, false, 0, 1),
        memory_(block_.floats() + beside_.floats() + 64) {
    beside_.place(block_.place(memory_.data()));
  }

  void run() {
    block_.clear_halo_rows(), beside_.clear_all();
    for (int64_t z = 0; z < a_.nz; ++z)
      for (int64_t y = 0; y < a_.ny; ++y) {
        if (y % 64 == 0) checkpoint();
        prepare_row(a_, b_, set_, block_, z, y);
      }
    for (int n = 0; n < a_.iterations; ++n) pass(1), pass(-1);
    for (int64_t z = 0; z < a_.nz; ++z)
      for (int64_t y = 0; y < a_.ny; ++y)
        std::memcpy(a_.out + (((b_ * a_.sets + set_) * a_.nz + z) * a_.ny + y) * a_.nx, block_.d + block_.at(z, y),
                    sizeof(float) * a_.nx);
  }

 private:
  float step(int z, int y, int x) const {
    float length = 0.f;
    if (z) length += a_.spacing[0] * a_.spacing[0];
    if (y) length += a_.spacing[1] * a_.spacing[1];
    if (x) length += a_.spacing[2] * a_.spacing[2];
    return metric_.step(__builtin_sqrtf(length));
  }

  void pass(int dir) {
    for (int64_t m = 0; m < a_.nz; ++m)
      for (int64_t n = 0; n < a_.ny; ++n) {
        if (n % 16 == 0) checkpoint();
        const int64_t z = dir > 0 ? m : a_.nz - 1 - m, y = dir > 0 ? n : a_.ny - 1 - n;
        const ptrdiff_t p = block_.at(z, y);
        const Row to{block_.d + p, block_.i + p};
        const Neighbour* rows = a_.volume ? kVolume : kPlane;
        for (int r = 0; r < (a_.volume ? 5 : 1); ++r) take(to, rows[r], dir);
        chain(to, dir);
      }
  }

  void take(Row to, const Neighbour& n, int dir) {
    const ptrdiff_t q = dir * (n.z * block_.slab + n.y * block_.row);
    const Row from{to.d + q, to.i + q};
    float steps[3];
    for (int k = -1; k <= 1; ++k) {
      const int x = dir * k;  // the backward pass mirrors all three axes
      steps[k + 1] = x < n.from || x > n.to ? kNaN : step(n.z, n.y, x);
    }
    relax_row<M, C, 1, 1, false>(metric_, block_.planes, to, &from, steps);
  }

  // d[x] = min(d[x], reach(d[x - dir])): the costs first, vector by vector, then the chain.
  void chain(Row to, int dir) {
    float* cost = beside_.d;
    const float length = step(0, 0, 1);
    edge_costs(to, dir, length, cost);
    float* d = to.d;
    const bool two = M::kind == Metric::fastgeodis;  // (d + step) + cost, as the others of this metric
    const float first = two ? length : 0.f;
    float last = d[dir > 0 ? 0 : a_.nx - 1];
    for (int64_t n = 1; n < a_.nx; ++n) {
      const int64_t x = dir > 0 ? n : a_.nx - 1 - n;
      const float reached = (last + first) + cost[x];
      last = reached < d[x] ? reached : d[x];
      d[x] = last;
    }
  }

  void edge_costs(Row to, int dir, float length, float* cost) {
    const vf zero = broadcast(0.f), step = broadcast(M::kind == Metric::fastgeodis ? 0.f : length);
    for (int v = 0; v < block_.planes.vectors; ++v) {
      vf sum = zero;
      for (int c = 0; c < block_.planes.channels; ++c) {
        const float* i = to.i + c * block_.planes.channel + v * N;
        const vf difference = load(i) - loadu(i - dir);
        sum = c == 0 ? M::first(difference) : M::add(sum, difference);
      }
      store(cost + v * N, metric_.reach(zero, step, sum));
    }
  }

  const Geodesic& a_;
  const int64_t b_, set_;
  const M metric_;
  Block block_, beside_;  // the image; one row of costs
  Scratch memory_;
};

}  // namespace

void geodesic_toivanen(const Geodesic& a, int64_t b, int64_t set) {
  if (a.metric == Metric::geodistk) return Toivanen<GeodisTkRaster, 0>(a, b, set).run();
  if (a.metric == Metric::geodistk_fm) return Toivanen<GeodisTkFm, 0>(a, b, set).run();
  if (a.channels == 1) return Toivanen<FastGeodis, 1>(a, b, set).run();
  if (a.channels == 3) return Toivanen<FastGeodis, 3>(a, b, set).run();
  Toivanen<FastGeodis, 0>(a, b, set).run();
}

}  // namespace FP_ISA
}  // namespace fastprompt
