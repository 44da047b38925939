// Relaxation of one tile. Sweeps as in the raster scan, but a row is visited only if a row that it takes from changed
// since that sweep last passed: bit y of a Pending mask says that row y changed.
#include "geodesic/tile.h"

#include "common/interrupt.h"
#include "geodesic/block.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

struct Pending {
  uint64_t forth = 0, back = 0;  // rows (planes) that the sweep with rising (falling) index has to look at
  void add(uint64_t rows) { forth |= rows, back |= rows; }
  bool any() const { return forth | back; }
};

// Edge lengths with one fixed order of additions, whatever the sweep: the result is that of Dijkstra on the graph.
template <class M>
float edge_step(const Geodesic& a, const M& metric, int dz, int dy, int dx) {
  const float z = a.spacing[0] * a.spacing[0], y = a.spacing[1] * a.spacing[1], x = a.spacing[2] * a.spacing[2];
  return metric.step(__builtin_sqrtf((dz ? z : 0.f) + (dy ? y : 0.f) + (dx ? x : 0.f)));
}

template <class M, int C, bool Volume>
class Solver {
 public:
  explicit Solver(Tile& t)
      : t_(t),
        a_(*t.args),
        metric_(a_),
        rows_(t.nz, t.ny, t.nx, Volume, a_.channels, 1),
        columns_(t.nz, t.nx, t.ny, Volume, a_.channels, 1),
        memory_(rows_.floats() + columns_.floats() + 64) {
    columns_.place(rows_.place(memory_.data()));
    for (int r = 0; r < 3; ++r)
      for (int k = 0; k < 3; ++k) {
        step_z_[3 * r + k] = edge_step(a_, metric_, 1, r != 1, k != 1);
        step_y_[3 * r + k] = edge_step(a_, metric_, r != 1, 1, k != 1);
        step_x_[3 * r + k] = edge_step(a_, metric_, r != 1, k != 1, 1);
      }
  }

  void run() {
    read();
    const uint64_t all_z = Volume ? mask(t_.nz) : 0;
    if (t_.first) z_.add(all_z), y_.add(mask(t_.ny)), x_.add(mask(t_.nx));
    bool halo = true;  // the first sweeps also take from the halo
    while (halo || z_.any() || y_.any() || x_.any()) {
      if (Volume && (halo || z_.any())) sweep_z(1, halo), sweep_z(-1, halo);
      if (halo || y_.any()) sweep_y(1, halo), sweep_y(-1, halo);
      if (halo || x_.any()) {
        turn(rows_, columns_);
        sweep_x(1, halo), sweep_x(-1, halo);
        turn(columns_, rows_);
      }
      halo = false;
    }
    write();
  }

 private:
  static constexpr int kRows = Volume ? 3 : 1;
  static uint64_t mask(int64_t n) { return n >= 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1; }

  uint64_t relax(Block& block, int64_t at, ptrdiff_t back, ptrdiff_t side, const float* step) {
    const Row to{block.d + at, block.i + at};
    Row from[kRows];
    for (int r = 0; r < kRows; ++r) {
      const ptrdiff_t p = (Volume ? r - 1 : 0) * side - back;
      from[r] = {to.d + p, to.i + p};
    }
    return relax_row<M, C, kRows, 1, true>(metric_, block.planes, to, from, Volume ? step : step + 3);
  }

  // Visits index 0 … n - 1 (or back), where the index before it is pending, or is the halo.
  template <class Visit>
  static void sweep(int dir, int64_t n, uint64_t& pending, bool halo, Visit visit) {
    uint64_t todo = pending;
    pending = 0;
    for (int64_t k = 0; k < n; ++k) {
      const int64_t here = dir > 0 ? k : n - 1 - k, before = here - dir;
      if (k == 0 ? halo : (todo >> before & 1) || (changed_bit(pending, before))) visit(here);
    }
    pending = 0;
  }
  static bool changed_bit(uint64_t bits, int64_t k) { return bits >> k & 1; }

  void sweep_z(int dir, bool halo) {
    uint64_t& pending = dir > 0 ? z_.forth : z_.back;
    uint64_t& other = dir > 0 ? z_.back : z_.forth;
    sweep(dir, t_.nz, pending, halo, [&](int64_t z) {
      for (int64_t y = 0; y < t_.ny; ++y)
        if (const uint64_t x = relax(rows_, rows_.at(z, y), dir * rows_.slab, rows_.row, step_z_)) {
          pending |= uint64_t(1) << z, other |= uint64_t(1) << z;
          y_.add(uint64_t(1) << y), x_.add(x), note(uint64_t(1) << z, uint64_t(1) << y, x);
        }
    });
  }

  void sweep_y(int dir, bool halo) {
    uint64_t& pending = dir > 0 ? y_.forth : y_.back;
    uint64_t& other = dir > 0 ? y_.back : y_.forth;
    sweep(dir, t_.ny, pending, halo, [&](int64_t y) {
      for (int64_t z = 0; z < t_.nz; ++z)
        if (const uint64_t x = relax(rows_, rows_.at(z, y), dir * rows_.row, rows_.slab, step_y_)) {
          pending |= uint64_t(1) << y, other |= uint64_t(1) << y;
          if (Volume) z_.add(uint64_t(1) << z);
          x_.add(x), note(uint64_t(1) << z, uint64_t(1) << y, x);
        }
    });
  }

  void sweep_x(int dir, bool halo) {
    uint64_t& pending = dir > 0 ? x_.forth : x_.back;
    uint64_t& other = dir > 0 ? x_.back : x_.forth;
    sweep(dir, t_.nx, pending, halo, [&](int64_t x) {
      for (int64_t z = 0; z < t_.nz; ++z)
        if (const uint64_t y = relax(columns_, columns_.at(z, x), dir * columns_.row, columns_.slab, step_x_)) {
          pending |= uint64_t(1) << x, other |= uint64_t(1) << x;
          if (Volume) z_.add(uint64_t(1) << z);
          y_.add(y), note(uint64_t(1) << z, y, uint64_t(1) << x);
        }
    });
  }

  void note(uint64_t z, uint64_t y, uint64_t x) { changed_z_ |= z, changed_y_ |= y, changed_x_ |= x; }

  void turn(const Block& from, Block& to) { turn_plane(from, from.d, to, to.d); }
  static void turn_plane(const Block& from, const float* src, const Block& to, float* dst) {
    for (int64_t z = from.volume ? -1 : 0; z < from.nz + (from.volume ? 1 : 0); ++z)
      for (int64_t y = 0; y < from.ny; y += N)
        for (int64_t x = 0; x < from.nx; x += N)
          transpose_tile(src + from.at(z, y) + x, from.row, dst + to.at(z, x) + y, to.row);
  }

  // The tile and a halo of one pixel, clipped at the border of the image, into both orientations.
  void read() {
    rows_.clear_all(), columns_.clear_all();
    const int64_t x0 = t_.x > 0 ? -1 : 0, x1 = t_.nx + (t_.x + t_.nx < a_.nx ? 1 : 0);
    for (int64_t z = -1; z <= t_.nz; ++z) {
      if (t_.z + z < 0 || t_.z + z >= a_.nz || (!Volume && z)) continue;
      for (int64_t y = -1; y <= t_.ny; ++y) {
        if (t_.y + y < 0 || t_.y + y >= a_.ny) continue;
        const ptrdiff_t p = rows_.at(z, y) + x0;
        std::memcpy(rows_.d + p, t_.d + pixel(z, y, x0), sizeof(float) * (x1 - x0));
        read_pixels(a_, t_.b, 0, 0, t_.z + z, t_.y + y, t_.x + x0, nullptr, rows_.i + p, rows_.planes, x1 - x0);
      }
    }
    for (int k = 0; k < 1 + rows_.planes.channels; ++k) {
      const float* src = rows_.plane(k);
      float* dst = columns_.plane(k);
      turn_plane(rows_, src, columns_, dst);
      for (int64_t z = Volume ? -1 : 0; z < t_.nz + (Volume ? 1 : 0); ++z) {  // the halo, pixel by pixel
        for (int64_t x = -1; x <= t_.nx; ++x)
          for (int64_t y = -1; y <= t_.ny; y += t_.ny + 1) dst[columns_.at(z, x) + y] = src[rows_.at(z, y) + x];
        for (int64_t y = 0; y < t_.ny; ++y)
          for (int64_t x = -1; x <= t_.nx; x += t_.nx + 1) dst[columns_.at(z, x) + y] = src[rows_.at(z, y) + x];
      }
    }
  }

  int64_t pixel(int64_t z, int64_t y, int64_t x) const { return ((t_.z + z) * a_.ny + t_.y + y) * a_.nx + t_.x + x; }

  void write() {
    for (float& lowest : t_.lowest) lowest = kInf;
    if (!changed_x_ && !t_.first) return;
    for (int64_t z = 0; changed_x_ && z < t_.nz; ++z)
      for (int64_t y = 0; y < t_.ny; ++y)
        std::memcpy(t_.d + pixel(z, y, 0), rows_.d + rows_.at(z, y), sizeof(float) * t_.nx);
    const int64_t last[] = {t_.nz - 1, t_.ny - 1, t_.nx - 1};
    const uint64_t changed[] = {changed_z_, changed_y_, changed_x_};
    for (int axis = Volume ? 0 : 1; axis < 3; ++axis)
      for (int end = 0; end < 2; ++end) {
        const int64_t at = end ? last[axis] : 0;
        // What a side began with is news to its neighbour, too: seeds all along it change no more.
        if (t_.first || (changed[axis] >> at & 1)) t_.lowest[2 * axis + end] = side_minimum(axis, at);
      }
  }

  float side_minimum(int axis, int64_t at) const {
    const int64_t z0 = axis == 0 ? at : 0, z1 = axis == 0 ? at + 1 : t_.nz;
    const int64_t y0 = axis == 1 ? at : 0, y1 = axis == 1 ? at + 1 : t_.ny;
    const int64_t x0 = axis == 2 ? at : 0, x1 = axis == 2 ? at + 1 : t_.nx;
    float lowest = kInf;
    for (int64_t z = z0; z < z1; ++z)
      for (int64_t y = y0; y < y1; ++y)
        for (int64_t x = x0; x < x1; ++x) {
          const float d = rows_.d[rows_.at(z, y) + x];
          lowest = d < lowest ? d : lowest;
        }
    return lowest;
  }

  Tile& t_;
  const Geodesic& a_;
  const M metric_;
  Block rows_, columns_;  // the tile along x, and along y
  Scratch memory_;
  float step_z_[9], step_y_[9], step_x_[9];
  Pending z_, y_, x_;
  uint64_t changed_z_ = 0, changed_y_ = 0, changed_x_ = 0;
};

template <class M, int C>
void run(Tile& t) {
  t.args->volume ? Solver<M, C, true>(t).run() : Solver<M, C, false>(t).run();
}

}  // namespace

void relax_tile(Tile& t) {
  const Geodesic& a = *t.args;
  if (a.metric == Metric::geodistk) return run<GeodisTkRaster, 0>(t);
  if (a.metric == Metric::geodistk_fm) return run<GeodisTkFm, 0>(t);
  a.channels == 1 ? run<FastGeodis, 1>(t) : a.channels == 3 ? run<FastGeodis, 3>(t) : run<FastGeodis, 0>(t);
}

void start_distances(const Geodesic& a, int64_t b, int64_t set, float* d) {
  for (int64_t z = 0; z < a.nz; ++z)
    for (int64_t y = 0; y < a.ny; ++y, d += a.nx) {
      if (y % 64 == 0) checkpoint();
      start_row(a, b, set, z, y, 0, d, a.nx);
      if (!a.barrier.data) continue;
      const uint8_t* wall = barrier_row(a, b, z, y, 0);
      for (int64_t x = 0; x < a.nx; ++x)
        if (wall[x * a.barrier.stride[4]]) d[x] = kInf;
    }
}

void plain_image(const Geodesic& a, int64_t b, float* image) {
  Planes planes{};
  planes.channels = static_cast<int>(a.channels);
  planes.channel = a.nz * a.ny * a.nx;
  for (int64_t z = 0; z < a.nz; ++z)
    for (int64_t y = 0; y < a.ny; ++y, image += a.nx) {
      if (y % 64 == 0) checkpoint();
      read_pixels(a, b, 0, 0, z, y, 0, nullptr, image, planes, a.nx);
    }
}

}  // namespace FP_ISA
}  // namespace fastprompt
