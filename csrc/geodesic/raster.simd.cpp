// Raster scan in FastGeodis' order: along every axis one sweep forth and one back, each pixel taking from the row (in
// a volume: the three rows) before it. Pixels of one row do not see each other, so a row is data-parallel; the sweeps
// along x run on strips of columns that are transposed into a buffer which stays in the L2 cache.
//
// Threads share the rows of a volume's plane. A picture has one row at a time, so each thread takes a part of the
// columns for kBlock rows, and kBlock columns more on either side, in memory of its own: what is wrong at the end of
// such a margin, where the neighbours are missing, moves inwards by one column a row and does not reach the part.
#include "common/interrupt.h"
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
  Raster(const Geodesic& a, int64_t b, int64_t set, int threads)
      : a_(a),
        b_(b),
        set_(set),
        parts_(Volume ? 1 : threads),
        metric_(a),
        steps_(edge_steps(a, metric_)),
        grid_(a.nz, a.ny, a.nx, Volume, a.channels, K),
        turned_(a.nz, a.nx, a.ny, Volume, a.channels, K),
        memory_(grid_.floats() + turned_.floats() + 64) {
    turned_.place(grid_.place(memory_.data()));
  }

  // Threads that are worth their while. One grey picture lives on the memory, not on arithmetic: a second thread made
  // it slower, by 1.1 to 1.4 times. With three channels it takes 0.7 of the time from 1024 x 1024 on, and none off 512
  // x 512.
  static int useful(const Geodesic& a, int threads) {
    if (Volume) return threads;
    const bool heavy = a.channels >= 3 || M::kind != Metric::fastgeodis;
    const int64_t most = heavy ? (a.nx < a.ny ? a.nx : a.ny) / 384 : 1;
    return most < threads ? static_cast<int>(most < 1 ? 1 : most) : threads;
  }

  // Every thread of a team runs this; the stages keep them together.
  void run(Member& m) {
    each(m, 1, [&](int64_t) { grid_.clear_halo_rows(), turned_.clear_halo_rows(); });
    if (a_.iterations <= 0) return each(m, a_.nz, [&](int64_t z) { copy_plane(z); });
    for (int n = 0; n < a_.iterations; ++n) {
      if (Volume) sweep_z(m, 1, n == 0), sweep_z(m, -1, false);
      sweep_y(m, 1, !Volume && n == 0), sweep_y(m, -1, false);
      sweep_x(m, n == 0, n == a_.iterations - 1);
    }
  }

  static void program(Member& m, void* self) { static_cast<Raster*>(self)->run(m); }

 private:
  static constexpr int kRows = Volume ? 3 : 1;
  static constexpr int64_t kStrip = 64, kBlock = 16;
  static constexpr int kLongRow = 1 << 14;  // vectors: some 0.1 ms

  // One row of distances and image, and how far it is to the next of the sweep and to the neighbours in a volume.
  struct Line {
    float* d;
    const float* i;
    ptrdiff_t back_d, back_i, side_d, side_i;
    Line next(int64_t n) const { return {d + n * back_d, i + n * back_i, back_d, back_i, side_d, side_i}; }
  };

  template <class Body>
  static void each(Member& m, int64_t items, Body body) {
    m.stage(items);
    for (int64_t from, to; m.next(&from, &to);)
      for (int64_t n = from; n < to; ++n) body(n);
  }

  // A row takes from the row behind it, in a volume also from that row's two neighbours.
  void relax(const Planes& planes, const Line& to, const float* step) {
    Row from[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int lateral = Volume ? r - 1 : 0;
      from[r] = {to.d - to.back_d + lateral * to.side_d, to.i - to.back_i + lateral * to.side_i};
    }
    relax_row<M, C, kRows, K, false>(metric_, planes, {to.d, to.i}, from, Volume ? step : step + 3);
  }

  // At most kBlock rows of a picture, `first` and those that follow it.
  void relax_block(Member& m, const Planes& planes, const Line& first, int64_t rows, const float* step) {
    if (parts_ > 1) return each(m, parts_, [&](int64_t part) { relax_part(planes, first, rows, step, part); });
    each(m, 1, [&](int64_t) {
      for (int64_t n = 0; n < rows; ++n) {
        if (planes.vectors > kLongRow) checkpoint();
        relax(planes, first.next(n), step);
      }
    });
  }

  // NOTE: the thread next to this one writes the old distances that the margin reads. Either value will do: a distance
  // that has taken from the row before keeps its value when it does so again.
  void relax_part(const Planes& planes, const Line& first, int64_t rows, const float* step, int64_t part) {
    const int64_t from = part_begin(part, planes.vectors), to = part_begin(part + 1, planes.vectors),
                  margin = kBlock / N;
    const int64_t low = from > margin ? from - margin : 0;
    const int64_t high = planes.vectors - to > margin ? to + margin : planes.vectors;
    Planes own = planes;
    own.vectors = static_cast<int>(high - low);
    own.set = (high - low + 2) * N;
    Scratch memory(2 * K * own.set);
    float* row[2] = {memory.data() + N, memory.data() + N + K * own.set};
    Block::fill(memory.data(), 2 * K * own.set, kInf);
    const auto copy = [](float* to, ptrdiff_t to_set, const float* source, ptrdiff_t source_set, int64_t vectors) {
      for (int k = 0; k < K; ++k)
        for (int64_t v = 0; v < vectors; ++v) store(to + k * to_set + v * N, load(source + k * source_set + v * N));
    };
    copy(row[1], own.set, first.d - first.back_d + low * N, planes.set, high - low);
    for (int64_t n = 0; n < rows; ++n) {
      if (planes.vectors > kLongRow) checkpoint();
      const Line here = first.next(n);
      float *now = row[n % 2], *before = row[1 - n % 2];
      copy(now, own.set, here.d + low * N, planes.set, high - low);
      relax(own, {now, here.i + low * N, now - before, here.back_i, 0, 0}, step);
      copy(here.d + from * N, planes.set, now + (from - low) * N, own.set, to - from);
    }
  }

  int64_t part_begin(int64_t part, int64_t length) const { return length * part / parts_; }

  Line grid_line(int64_t z, int64_t y, ptrdiff_t back, ptrdiff_t side) const {
    const ptrdiff_t p = grid_.at(z, y);
    return {grid_.d + p, grid_.i + p, back, back, side, side};
  }

  void sweep_z(Member& m, int dir, bool first) {
    for (int64_t n = 0; n < a_.nz; ++n) {
      const int64_t z = dir > 0 ? n : a_.nz - 1 - n;
      if (n == 0 && !first) continue;
      each(m, a_.ny, [&](int64_t y) {
        if (first) prepare_row(a_, b_, set_, grid_, z, y);
        if (n > 0) relax(grid_.planes, grid_line(z, y, dir * grid_.slab, grid_.row), steps_.z);
      });
    }
  }

  void sweep_y(Member& m, int dir, bool first) {
    const auto line = [&](int64_t z, int64_t n) {
      return grid_line(z, dir > 0 ? n : a_.ny - 1 - n, dir * grid_.row, grid_.slab);
    };
    if (Volume) {
      for (int64_t n = 1; n < a_.ny; ++n) each(m, a_.nz, [&](int64_t z) { relax(grid_.planes, line(z, n), steps_.y); });
      return;
    }
    if (first) each(m, 1, [&](int64_t) { prepare_row(a_, b_, set_, grid_, 0, 0); });
    for (int64_t n = 1; n < a_.ny; n += kBlock) {
      const int64_t rows = a_.ny - n < kBlock ? a_.ny - n : kBlock;
      if (first) each(m, rows, [&](int64_t y) { prepare_row(a_, b_, set_, grid_, 0, n + y); });
      relax_block(m, grid_.planes, line(0, n), rows, steps_.y);
    }
  }

  // Along x the sweeps run on turned planes, whose rows are the columns. The way forth turns strip by strip what it is
  // about to sweep, the way back turns back what it has swept: both find it in the L2 cache.
  void sweep_x(Member& m, bool first, bool last) {
    const int64_t strips = (a_.nx + kStrip - 1) / kStrip;
    for (int64_t n = 0; n < strips; ++n) {
      const int64_t x0 = n * kStrip, count = strip_width(x0);
      each_part(m, [&](int64_t z, int64_t y0, int64_t y1) { turn(z, x0, count, y0, y1, first); });
      sweep_strip(m, 1, x0, count);
    }
    for (int64_t n = strips - 1; n >= 0; --n) {
      const int64_t x0 = n * kStrip, count = strip_width(x0);
      sweep_strip(m, -1, x0, count);
      each_part(m, [&](int64_t z, int64_t y0, int64_t y1) { turn_back(z, x0, count, y0, y1, last); });
    }
  }

  int64_t strip_width(int64_t x0) const { return a_.nx - x0 < kStrip ? a_.nx - x0 : kStrip; }

  // body(z, y0, y1) for the planes of a volume, or for parts of the rows of a picture.
  template <class Body>
  void each_part(Member& m, Body body) {
    const int64_t tiles = (a_.ny + N - 1) / N;
    each(m, a_.nz * parts_, [&](int64_t n) {
      const int64_t y1 = part_begin(n % parts_ + 1, tiles) * N;
      body(n / parts_, part_begin(n % parts_, tiles) * N, y1 < a_.ny ? y1 : a_.ny);
    });
  }

  void sweep_strip(Member& m, int dir, int64_t x0, int64_t count) {
    const auto line = [&](int64_t z, int64_t n) {
      const ptrdiff_t p = turned_.at(z, dir > 0 ? x0 + n : x0 + count - 1 - n);
      return Line{turned_.d + p, turned_.i + p, dir * turned_.row, dir * turned_.row, turned_.slab, turned_.slab};
    };
    if (Volume)
      for (int64_t n = 0; n < count; ++n)
        each(m, a_.nz, [&](int64_t z) { relax(turned_.planes, line(z, n), steps_.x); });
    else
      for (int64_t n = 0; n < count; n += kBlock)
        relax_block(m, turned_.planes, line(0, n), count - n < kBlock ? count - n : kBlock, steps_.x);
  }

  // Columns [x0, x0 + count) of a plane, rows [y0, y1): the distances, and the image where `image` says so.
  void turn(int64_t z, int64_t x0, int64_t count, int64_t y0, int64_t y1, bool image) {
    for (int64_t x = x0; image && y0 == 0 && x < x0 + count; ++x) turned_.clear_ends(z, x);
    for (int k = 0; k < (image ? K + a_.channels : K); ++k)
      for (int64_t y = y0; y < y1; y += N) {
        if (y % kLongRow == 0) checkpoint();
        for (int64_t x = x0; x < x0 + count; x += N)
          transpose_tile(grid_.plane(k) + grid_.at(z, y) + x, grid_.row, turned_.plane(k) + turned_.at(z, x) + y,
                         turned_.row);
      }
  }

  void turn_back(int64_t z, int64_t x0, int64_t count, int64_t y0, int64_t y1, bool last) {
    for (int k = 0; k < K; ++k)
      for (int64_t y = y0; y < y1; y += N) {
        if (y % kLongRow == 0) checkpoint();
        for (int64_t x = x0; x < x0 + count; x += N) {
          const float* tile = turned_.plane(k) + turned_.at(z, x) + y;
          if (last)
            output_tile(tile, k, z, y, x);
          else
            transpose_tile(tile, turned_.row, grid_.plane(k) + grid_.at(z, y) + x, grid_.row);
        }
      }
  }

  float* output(int k, int64_t z, int64_t y) const {
    return a_.out + (((b_ * a_.sets + set_ + k) * a_.nz + z) * a_.ny + y) * a_.nx;
  }

  void output_tile(const float* tile, int k, int64_t z, int64_t y, int64_t x) {
    if (y + N <= a_.ny && x + N <= a_.nx) return transpose_tile(tile, turned_.row, output(k, z, y) + x, a_.nx);
    alignas(64) float edge[N * N];
    transpose_tile(tile, turned_.row, edge, N);
    for (int64_t j = 0; j < N && y + j < a_.ny; ++j)
      std::memcpy(output(k, z, y + j) + x, edge + j * N, sizeof(float) * (a_.nx - x < N ? a_.nx - x : N));
  }

  void copy_plane(int64_t z) {
    for (int64_t y = 0; y < a_.ny; ++y) {
      if (y % 64 == 0) checkpoint();
      prepare_row(a_, b_, set_, grid_, z, y);
      for (int k = 0; k < K; ++k) std::memcpy(output(k, z, y), grid_.plane(k) + grid_.at(z, y), sizeof(float) * a_.nx);
    }
  }

  const Geodesic& a_;
  const int64_t b_, set_, parts_;  // parts of a picture's columns
  const M metric_;
  const Steps steps_;
  Block grid_, turned_;  // rows along x, rows along y
  Scratch memory_;
};

template <class M, int C, int K, bool Volume>
void run(const Geodesic& a, int64_t b, int64_t set, int threads) {
  using Solver = Raster<M, C, K, Volume>;
  threads = team_size(Solver::useful(a, threads));
  Solver raster(a, b, set, threads);
  run_team(threads, Solver::program, &raster);
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
