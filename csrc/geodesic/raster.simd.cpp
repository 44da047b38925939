// Raster scan in FastGeodis' order: along every axis one sweep forth and one back, each pixel taking from the row (in
// a volume: the three rows) before it. Pixels of one row do not see each other, so a row is data-parallel; the sweeps
// along x run on strips of columns that are transposed into a buffer which stays in the L2 cache.
#include "common/parallel.h"
#include "geodesic/block.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

struct Steps {
  float z[9], y[9], x[9];
};

// Lengths of the edges, squared spacings added in the order that FastGeodis adds them: serial axis first.
template <class M>
Steps edge_steps(const Geodesic& a, const M& metric) {
  const float z = a.spacing[0] * a.spacing[0], y = a.spacing[1] * a.spacing[1], x = a.spacing[2] * a.spacing[2];
  Steps s;
  for (int r = 0; r < 3; ++r)
    for (int k = 0; k < 3; ++k) {
      const float across = r == 1 ? 0.f : 1.f, along = k == 1 ? 0.f : 1.f;
      s.z[3 * r + k] = metric.step(__builtin_sqrtf(z + across * y + along * x));
      s.y[3 * r + k] = metric.step(__builtin_sqrtf(y + across * z + along * x));
      s.x[3 * r + k] = metric.step(__builtin_sqrtf(x + along * y + across * z));
    }
  return s;
}

template <class M, int C, int K, bool Volume>
class Raster {
 public:
  Raster(const Geodesic& a, int64_t b, int64_t set)
      : a_(a), b_(b), set_(set), metric_(a), steps_(edge_steps(a, metric_)),
        grid_(a.nz, a.ny, a.nx, Volume, a.channels, K), turned_(a.nz, a.nx, a.ny, Volume, a.channels, 0),
        strip_(a.nz, kStrip, a.ny, Volume, 0, K), memory_(grid_.floats() + turned_.floats() + strip_.floats() + 64) {
    strip_.place(turned_.place(grid_.place(memory_.data())));
  }

  // Every thread of a team runs this; the stages keep them together.
  void run(Member& m) {
    each(m, 1, [&](int64_t) { grid_.clear_halo_rows(), turned_.clear_halo_rows(), strip_.clear_all(); });
    if (a_.iterations <= 0) return each(m, a_.nz, [&](int64_t z) { copy_plane(z); });
    for (int n = 0; n < a_.iterations; ++n) {
      if (Volume) sweep_z(m, 1, n == 0), sweep_z(m, -1, false);
      sweep_y(m, 1, !Volume && n == 0), sweep_y(m, -1, false);
      sweep_x(m, 1, n == 0, false), sweep_x(m, -1, false, n == a_.iterations - 1);
    }
  }

  static void program(Member& m, void* self) { static_cast<Raster*>(self)->run(m); }

 private:
  static constexpr int kRows = Volume ? 3 : 1;
  static constexpr int64_t kStrip = 64;

  template <class Body>
  static void each(Member& m, int64_t items, Body body) {
    m.stage(items);
    for (int64_t from, to; m.next(&from, &to);)
      for (int64_t n = from; n < to; ++n) body(n);
  }

  // A row takes from the row at distance `back` (in d and in i), in a volume also from that row's two neighbours.
  void relax(const Planes& planes, float* d, const float* i, ptrdiff_t back_d, ptrdiff_t back_i, ptrdiff_t side_d,
             ptrdiff_t side_i, const float* step) {
    Row from[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int lateral = Volume ? r - 1 : 0;
      from[r] = {d - back_d + lateral * side_d, i - back_i + lateral * side_i};
    }
    relax_row<M, C, kRows, K, false>(metric_, planes, {d, i}, from, Volume ? step : step + 3);
  }

  void relax_grid(int64_t z, int64_t y, ptrdiff_t back, ptrdiff_t side, const float* step) {
    const ptrdiff_t p = grid_.at(z, y);
    relax(grid_.planes, grid_.d + p, grid_.i + p, back, back, side, side, step);
  }

  void sweep_z(Member& m, int dir, bool first) {
    for (int64_t n = 0; n < a_.nz; ++n) {
      const int64_t z = dir > 0 ? n : a_.nz - 1 - n;
      if (n == 0 && !first) continue;
      each(m, a_.ny, [&](int64_t y) {
        if (first) prepare_row(a_, b_, set_, grid_, z, y);
        if (n > 0) relax_grid(z, y, dir * grid_.slab, grid_.row, steps_.z);
      });
    }
  }

  void sweep_y(Member& m, int dir, bool first) {
    if (!Volume) {  // one row after the other: nothing to share
      each(m, 1, [&](int64_t) {
        for (int64_t n = 0; n < a_.ny; ++n) {
          const int64_t y = dir > 0 ? n : a_.ny - 1 - n;
          if (first) prepare_row(a_, b_, set_, grid_, 0, y);
          if (n > 0) relax_grid(0, y, dir * grid_.row, 0, steps_.y);
        }
      });
      return;
    }
    for (int64_t n = 1; n < a_.ny; ++n) {
      const int64_t y = dir > 0 ? n : a_.ny - 1 - n;
      each(m, a_.nz, [&](int64_t z) { relax_grid(z, y, dir * grid_.row, grid_.slab, steps_.y); });
    }
  }

  // Strip by strip: turn the distances (and, once, the image), sweep over the columns as rows, turn back.
  void sweep_x(Member& m, int dir, bool first, bool last) {
    const int64_t strips = (a_.nx + kStrip - 1) / kStrip;
    for (int64_t n = 0; n < strips; ++n) {
      const int64_t x0 = (dir > 0 ? n : strips - 1 - n) * kStrip, count = a_.nx - x0 < kStrip ? a_.nx - x0 : kStrip;
      each(m, a_.nz, [&](int64_t z) {
        for (int k = 0; k < K; ++k) turn(grid_.plane(k), strip_.plane(k), strip_, z, 0, x0, count);
        for (int c = 0; first && c < a_.channels; ++c)
          turn(grid_.plane(K + c), turned_.plane(c), turned_, z, x0, x0, count);
        if (n == 0) strip_.clear_row(z, dir > 0 ? -1 : count);
      });
      sweep_strip(m, dir, x0, count);
      each(m, a_.nz, [&](int64_t z) {
        write_back(z, x0, count, last);
        // The last column of this strip is the one behind the first of the next.
        for (int k = 0; k < K; ++k)
          std::memcpy(strip_.plane(k) + strip_.at(z, dir > 0 ? -1 : kStrip),
                      strip_.plane(k) + strip_.at(z, dir > 0 ? count - 1 : 0), sizeof(float) * a_.ny);
      });
    }
  }

  void sweep_strip(Member& m, int dir, int64_t x0, int64_t count) {
    Planes planes = turned_.planes;
    planes.set = strip_.planes.set;
    for (int64_t n = 0; n < count; n += Volume ? 1 : count)
      each(m, a_.nz, [&](int64_t z) {
        for (int64_t k = n; k < (Volume ? n + 1 : count); ++k) {
          const int64_t x = dir > 0 ? k : count - 1 - k;
          relax(planes, strip_.d + strip_.at(z, x), turned_.i + turned_.at(z, x0 + x), dir * strip_.row,
                dir * turned_.row, strip_.slab, turned_.slab, steps_.x);
        }
      });
  }

  // Columns [x0, x0 + count) of a grid plane become the rows from `row` on of another.
  void turn(const float* from, float* to, const Block& block, int64_t z, int64_t row, int64_t x0, int64_t count) {
    for (int64_t y = 0; y < a_.ny; y += N)
      for (int64_t x = 0; x < count; x += N)
        transpose_tile(from + grid_.at(z, y) + x0 + x, grid_.row, to + block.at(z, row + x) + y, block.row);
  }

  void write_back(int64_t z, int64_t x0, int64_t count, bool last) {
    for (int k = 0; k < K; ++k)
      for (int64_t y = 0; y < a_.ny; y += N)
        for (int64_t x = 0; x < count; x += N) {
          const float* tile = strip_.plane(k) + strip_.at(z, x) + y;
          if (last)
            output_tile(tile, k, z, y, x0 + x);
          else
            transpose_tile(tile, strip_.row, grid_.plane(k) + grid_.at(z, y) + x0 + x, grid_.row);
        }
  }

  float* output(int k, int64_t z, int64_t y) const {
    return a_.out + (((b_ * a_.sets + set_ + k) * a_.nz + z) * a_.ny + y) * a_.nx;
  }

  void output_tile(const float* tile, int k, int64_t z, int64_t y, int64_t x) {
    if (y + N <= a_.ny && x + N <= a_.nx) return transpose_tile(tile, strip_.row, output(k, z, y) + x, a_.nx);
    alignas(64) float edge[N * N];
    transpose_tile(tile, strip_.row, edge, N);
    for (int64_t j = 0; j < N && y + j < a_.ny; ++j)
      std::memcpy(output(k, z, y + j) + x, edge + j * N, sizeof(float) * (a_.nx - x < N ? a_.nx - x : N));
  }

  void copy_plane(int64_t z) {
    for (int64_t y = 0; y < a_.ny; ++y) {
      prepare_row(a_, b_, set_, grid_, z, y);
      for (int k = 0; k < K; ++k) std::memcpy(output(k, z, y), grid_.plane(k) + grid_.at(z, y), sizeof(float) * a_.nx);
    }
  }

  const Geodesic& a_;
  const int64_t b_, set_;
  const M metric_;
  const Steps steps_;
  Block grid_, turned_, strip_;  // rows along x; the image along y; the distances of some columns along y
  Scratch memory_;
};

template <class M, int C, int K, bool Volume>
void run(const Geodesic& a, int64_t b, int64_t set, int threads) {
  Raster<M, C, K, Volume> raster(a, b, set);
  run_team(Volume ? threads : 1, Raster<M, C, K, Volume>::program, &raster);
}

template <class M, int C>
void by_shape(const Geodesic& a, int64_t b, int64_t set, int count, int threads) {
  if (a.volume)
    count == 2 ? run<M, C, 2, true>(a, b, set, threads) : run<M, C, 1, true>(a, b, set, threads);
  else
    count == 2 ? run<M, C, 2, false>(a, b, set, threads) : run<M, C, 1, false>(a, b, set, threads);
}

}  // namespace

void geodesic_raster(const Geodesic& a, int64_t b, int64_t set, int count, int threads) {
  if (a.metric == Metric::geodistk) return by_shape<GeodisTkRaster, 0>(a, b, set, count, threads);
  if (a.metric == Metric::geodistk_fm) return by_shape<GeodisTkFm, 0>(a, b, set, count, threads);
  if (a.channels == 1) return by_shape<FastGeodis, 1>(a, b, set, count, threads);
  if (a.channels == 3) return by_shape<FastGeodis, 3>(a, b, set, count, threads);
  by_shape<FastGeodis, 0>(a, b, set, count, threads);
}

}  // namespace FP_ISA
}  // namespace fastprompt
