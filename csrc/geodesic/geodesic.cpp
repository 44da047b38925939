#include "geodesic/geodesic.h"

#include <cmath>
#include <limits>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "geodesic/check.h"
#include "geodesic/slim.h"

namespace fastprompt {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Seed sets that one pass serves: the raster scan computes the costs once for two.
int sets_per_pass(const Geodesic& a) { return a.method == Method::raster ? 2 : 1; }

void apply_limit(const Geodesic& a, int64_t b, int64_t set, int count) {
  const int64_t pixels = a.nz * a.ny * a.nx;
  float* d = a.out + (b * a.sets + set) * pixels;
  if (a.limit == kInf) return;
  by_chunks(count * pixels, [&](int64_t from, int64_t to) {
    for (int64_t p = from; p < to; ++p)
      if (d[p] > a.limit) d[p] = kInf;
  });
}

void solve(const Geodesic& a, int64_t b, int64_t set, int count, int threads) {
  if (a.method == Method::exact)
    exact_distance(a, b, set, threads);
  else if (is_slim(a))
    slim_scan(a, b, set, count);
  else if (a.method == Method::toivanen)
    FP_DISPATCH(geodesic_toivanen)(a, b, set);
  else
    FP_DISPATCH(geodesic_raster)(a, b, set, count, threads);
  apply_limit(a, b, set, count);
}

}  // namespace

// Images and seed sets are independent: they run side by side, and what threads are left share one.
void geodesic_distance(const Geodesic& a) {
  check_numbers(a);
  const int64_t each = sets_per_pass(a), passes = (a.sets + each - 1) / each, count = a.batch * passes;
  if (count * a.nz * a.ny * a.nx == 0) return;
  const int inner = static_cast<int>((a.threads + count - 1) / count);
  parallel_for(a.threads, count, [&](int64_t n) {
    const int64_t set = n % passes * each, left = a.sets - set;
    solve(a, n / passes, set, static_cast<int>(left < each ? left : each), inner);
  });
}

void signed_geodesic_distance(const Geodesic& a) {
  check_numbers(a);
  const int64_t pixels = a.nz * a.ny * a.nx, maps = a.batch * a.sets;
  if (maps * pixels == 0) return;
  Scratch both(2 * maps * pixels);
  Geodesic pairs = a;
  pairs.sets = 2 * a.sets;
  pairs.out = both.data();
  geodesic_distance(pairs);
  for (int64_t n = 0; n < maps; ++n) {
    const float *to_map = both.data() + 2 * n * pixels, *to_rest = to_map + pixels;
    float* out = a.out + n * pixels;
    by_chunks(pixels, [&](int64_t from, int64_t to) {
      for (int64_t p = from; p < to; ++p) out[p] = to_map[p] == kInf ? kInf : to_map[p] - to_rest[p];
    });
  }
}

}  // namespace fastprompt
