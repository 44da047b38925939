#include "guidance/click.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

constexpr int64_t kBandRows = 32;
constexpr int64_t kWorthThreads = 1 << 16;  // pixels
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Distances beyond which an encoding does not change any more, in float: tanh(9.1) is 1, e^-87 as good as 0.
float reach(const ClickMaps& a, float scale) {
  switch (a.encoding) {
    case ClickEncoding::disk:
      return scale;
    case ClickEncoding::euclidean:
      return a.clip * a.clip * 1.00001f;
    case ClickEncoding::tanh:
      return 9.1f / scale * (9.1f / scale);
    default:
      return 87.f / scale;
  }
}

float limit(const ClickMaps& a) {
  if (a.encoding == ClickEncoding::euclidean) return a.clip / a.divisor;
  return a.encoding == ClickEncoding::tanh;
}

struct Clicks {
  std::vector<float> x, y, start;
  std::vector<int64_t> first{0};
};

Clicks sorted_by_map(const ClickMaps& a) {
  Clicks c;
  for (int64_t m = 0; m < a.images * a.channels; ++m) {
    const int64_t image = m / a.channels * a.clicks, wanted = a.of_labels[m % a.channels];
    c.start.push_back(kInfinity);
    for (int64_t k = image; k < image + a.clicks; ++k) {
      const float x = a.points[2 * k], y = a.points[2 * k + 1];
      if (a.labels[k] != wanted) continue;
      if (!std::isfinite(x) || !std::isfinite(y) || (x < 0 && y < 0))
        c.start[m] = a.missing;
      else
        c.x.push_back(x), c.y.push_back(y);
    }
    c.first.push_back(c.x.size());
  }
  return c;
}

}  // namespace

void click_maps(const ClickMaps& a) {
  const int64_t maps = a.images * a.channels, pixels = a.height * a.width;
  if (maps * a.scales * pixels == 0) return;
  const Clicks c = sorted_by_map(a);
  std::vector<float> far(a.scales);
  for (int64_t k = 0; k < a.scales; ++k) far[k] = reach(a, a.scale[k]);
  ClickPlan p{};
  p.args = a, p.x = c.x.data(), p.y = c.y.data(), p.first = c.first.data(), p.start = c.start.data();
  p.reach = far.data(), p.limit = limit(a);

  const int threads = maps * a.scales * pixels < kWorthThreads ? 1 : a.threads;
  const int64_t bands = (a.height + kBandRows - 1) / kBandRows;
  for (int64_t b = 0; b < a.images; ++b)
    prefer_huge_pages(a.out + b * a.image_stride, a.channels * a.scales * pixels * sizeof(float));
  parallel_for(threads, maps * bands, [&](int64_t k) {
    const int64_t row = k % bands * kBandRows;
    FP_DISPATCH(click_band)(p, k / bands, row, std::min(row + kBandRows, a.height));
  });
  if (!a.stretch) return;
  parallel_for(threads, maps * a.scales, [&](int64_t k) {
    const int64_t each = a.channels * a.scales;
    float* map = a.out + k / each * a.image_stride + k % each * pixels;
    const int64_t m = k / a.scales;
    if (c.first[m] == c.first[m + 1])
      std::fill(map, map + pixels, a.encoding == ClickEncoding::gaussian ? 0.f : 1.f);
    else
      FP_DISPATCH(stretch_map)(map, pixels);
  });
}

}  // namespace fastprompt
