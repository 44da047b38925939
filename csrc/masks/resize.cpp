#include "masks/resize.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"

namespace fastprompt {
namespace {

constexpr int64_t kBandRows = 64;  // of the output: the input rows of a band stay in the L2 cache

void add(MaskFacts& sum, const MaskFacts& f) {
  sum.above += f.above, sum.below += f.below;
  if (f.area == 0) return;
  if (sum.area == 0) sum.x0 = f.x0, sum.y0 = f.y0, sum.x1 = f.x1, sum.y1 = f.y1;
  sum.area += f.area;
  sum.x0 = std::min(sum.x0, f.x0), sum.y0 = std::min(sum.y0, f.y0);
  sum.x1 = std::max(sum.x1, f.x1), sum.y1 = std::max(sum.y1, f.y1);
}

}  // namespace

void resize_masks(const ResizeMasks& a) {
  const int64_t bands = (a.rows.size + kBandRows - 1) / kBandRows;
  std::vector<MaskFacts> facts(a.masks * bands);
  parallel_for(a.threads, a.masks * bands, [&](int64_t k) {
    const int64_t first = k % bands * kBandRows;
    FP_DISPATCH(resize_band)(a, k / bands, first, std::min(first + kBandRows, a.rows.size), &facts[k]);
  });
  for (int64_t m = 0; a.facts && m < a.masks; ++m) {
    a.facts[m] = {};
    for (int64_t k = 0; k < bands; ++k) add(a.facts[m], facts[m * bands + k]);
  }
}

}  // namespace fastprompt
