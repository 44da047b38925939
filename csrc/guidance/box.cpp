#include "guidance/box.h"

#include <algorithm>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {

constexpr int64_t kBandRows = 32;
constexpr int64_t kWorthThreads = 1 << 16;  // pixels

void box_maps(const BoxMaps& a) {
  const int64_t bands = (a.height + kBandRows - 1) / kBandRows, pixels = a.height * a.width;
  const int threads = a.images * pixels < kWorthThreads ? 1 : a.threads;
  for (int64_t b = 0; b < a.images; ++b) prefer_huge_pages(a.out + b * a.image_stride, pixels * sizeof(float));
  parallel_for(threads, a.images * bands, [&](int64_t k) {
    const int64_t row = k % bands * kBandRows;
    FP_DISPATCH(box_rows)(a, k / bands, row, std::min(row + kBandRows, a.height));
  });
}

}  // namespace fastprompt
