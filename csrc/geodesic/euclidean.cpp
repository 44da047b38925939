#include "geodesic/euclidean.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "geodesic/check.h"
#include "geodesic/euclidean_unit.h"

namespace fastprompt {
namespace {

// Of a band, where a plane has several. 8 to 32 rows are equally fast, 64 cost 20 % at 512 x 512 (the counts of a band
// leave the cache). euclidean_scan counts in bytes: at most 254.
constexpr int64_t kBandRows = 16;
constexpr int64_t kPlaneInCache = 1 << 17;  // pixels, 512 KiB
constexpr int64_t kWorthThreads = 1 << 13;  // pixels, 10 us: about what waking a thread takes

// NOTE: not inf, which times 0 rows is NaN.
float square(double d) { return static_cast<float>(std::min<double>(d * d, std::numeric_limits<float>::max())); }

// Squares of -(n + margin) … n + margin steps; returns the address of that of 0 steps.
const float* squares(float* table, int64_t n, double step) {
  float* middle = table + n + kEuclideanMargin;
  for (int64_t k = 0; k <= n + kEuclideanMargin; ++k) middle[k] = middle[-k] = square(k * step);
  return middle;
}

int64_t table_floats(int64_t n) { return 2 * (n + kEuclideanMargin) + 1; }

// A plane that fits into a core's cache is one band, which needs no scan, unless threads would have nothing to do.
int64_t band_rows(const EuclideanTransform& a) {
  const bool few = a.threads == 1 || a.batch * a.nz >= 4 * a.threads;
  return a.ny <= kBandRows || (few && a.ny * a.nx <= kPlaneInCache) ? a.ny : kBandRows;
}

// `above` and `below` know the band next door (euclidean_scan); where that has no seed, the bands behind it count.
void connect(const EuclideanPlan& p, int64_t plane) {
  const int64_t nx = p.args.nx;
  float *above = p.above + plane * p.bands * nx, *below = p.below + plane * p.bands * nx;
  std::fill(above, above + nx, std::numeric_limits<float>::infinity());
  std::fill(below + (p.bands - 1) * nx, below + p.bands * nx, std::numeric_limits<float>::infinity());
  for (int64_t k = nx; k < p.bands * nx; ++k) above[k] = std::min(above[k], above[k - nx] + p.rows);
  for (int64_t k = (p.bands - 1) * nx - 1; k >= 0; --k) below[k] = std::min(below[k], below[k + nx] + p.rows);
}

// A line of pixels along x or along z, in place: a walk forth and one back, and no table of squares.
void line(const EuclideanTransform& a, int64_t image, int axis, double step, float unit) {
  const int64_t n = axis == 2 ? a.nx : a.nz, stride = a.mask.stride[2 + axis];
  const uint8_t* mask = static_cast<const uint8_t*>(a.mask.data) + image * a.mask.stride[0];
  float* out = a.out + image * n;
  for (const int dir : {1, -1}) {
    double since = std::numeric_limits<double>::infinity();
    by_chunks(n, [&](int64_t from, int64_t to) {
      for (int64_t k = from; k < to; ++k) {
        const int64_t x = dir > 0 ? k : n - 1 - k;
        since = mask[x * stride] ? 0 : since + 1;
        const float reached = std::isinf(since) ? std::numeric_limits<float>::infinity() : square(since * step);
        out[x] = dir > 0 ? reached : std::sqrt(std::min(out[x], reached)) * unit;
      }
    });
  }
}

}  // namespace

// Count the rows from each pixel to a seed in its column; then the lower envelope of the parabolas that stand on these
// squares, along x; then the same along z (Felzenszwalb and Huttenlocher, Theory of Computing 8, 2012, eq. 2).
void euclidean_distance_transform(const EuclideanTransform& args) {
  const EuclideanTransform& a = args;
  for (const double s : a.spacing) check_spacing(s);
  const int64_t planes = a.batch * a.nz;
  if (planes * a.ny * a.nx == 0) return;
  const int threads = planes * a.ny * a.nx < kWorthThreads ? 1 : a.threads;
  const int64_t rows = band_rows(a), bands = (a.ny + rows - 1) / rows;
  double spacing[3];
  EuclideanPlan p{};
  p.args = a, p.rows = rows, p.bands = bands;
  const int64_t sizes[] = {a.nz, a.ny, a.nx};
  p.unit = static_cast<float>(euclidean_unit(a.spacing, sizes, spacing));
  if (a.ny == 1 && (a.nz == 1 || a.nx == 1)) {
    const int axis = a.nz == 1 ? 2 : 0;
    return parallel_for(threads, a.batch, [&](int64_t image) { line(a, image, axis, spacing[axis], p.unit); });
  }
  const int64_t state = bands > 1 ? planes * bands * a.nx : 0;
  Scratch memory(2 * state + table_floats(a.nx) + table_floats(a.nz));
  p.above = memory.data(), p.below = memory.data() + state;
  p.x_square = squares(memory.data() + 2 * state, a.nx, spacing[2]);
  p.z_square = squares(memory.data() + 2 * state + table_floats(a.nx), a.nz, spacing[0]);
  p.y_square = square(spacing[1]);

  if (bands > 1)
    parallel_for(threads, planes * bands, [&](int64_t k) { FP_DISPATCH(euclidean_scan)(p, k / bands, k % bands); });
  for (int64_t plane = 0; bands > 1 && plane < planes; ++plane) {
    checkpoint();
    connect(p, plane);
  }
  parallel_for(threads, planes * bands, [&](int64_t k) { FP_DISPATCH(euclidean_band)(p, k / bands, k % bands); });
  if (a.nz > 1)
    parallel_for(threads, a.batch * a.ny, [&](int64_t k) { FP_DISPATCH(euclidean_depth)(p, k / a.ny, k % a.ny); });
}

}  // namespace fastprompt
