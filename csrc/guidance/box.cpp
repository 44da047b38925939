#include "guidance/box.h"

#include <algorithm>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

constexpr int64_t kBandRows = 32;
constexpr int64_t kWorthThreads = 1 << 16;  // pixels

// Those of an image that are boxes; returns how many.
int64_t ordered(const float* corners, int64_t count, Box* boxes) {
  int64_t n = 0;
  for (const float* b = corners; b < corners + 4 * count; b += 4)
    if (b[0] == b[0] && b[1] == b[1] && b[2] == b[2] && b[3] == b[3])
      boxes[n++] = {std::min(b[0], b[2]), std::min(b[1], b[3]), std::max(b[0], b[2]), std::max(b[1], b[3])};
  return n;
}

}  // namespace

void box_maps(const BoxMaps& a) {
  const int64_t bands = (a.height + kBandRows - 1) / kBandRows, pixels = a.height * a.width;
  const int threads = a.images * pixels < kWorthThreads ? 1 : a.threads;
  for (int64_t b = 0; b < a.images; ++b) prefer_huge_pages(a.out + b * a.image_stride, pixels * sizeof(float));
  parallel_for(threads, a.images * bands, [&](int64_t k) {
    const int64_t image = k / bands, row = k % bands * kBandRows;
    const Scratch own(4 * a.boxes);  // of the band: it sorts them
    Box* boxes = reinterpret_cast<Box*>(own.data());
    const int64_t count = ordered(a.corners + image * a.boxes * 4, a.boxes, boxes);
    const Tile band{row, std::min(row + kBandRows, a.height), 0, a.width};
    FP_DISPATCH(box_tile)(a, a.out + image * a.image_stride, boxes, count, band);
  });
}

}  // namespace fastprompt
