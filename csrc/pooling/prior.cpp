#include "pooling/prior.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {

int64_t prior_blocks(const PriorMask& a) { return (a.channels + kPriorDepth - 1) / kPriorDepth; }

namespace {

constexpr int64_t kPackRows = 64;

void one_pair(const PriorMask& a, const Bf16* engine, int64_t pair) {
  const float* mask = a.mask + pair * a.support_pixels;
  float* out = a.out + pair * a.query_pixels;
  std::vector<int32_t> pixel;
  for (int64_t n = 0; n < a.support_pixels; ++n)
    if (mask[n] != 0) pixel.push_back(static_cast<int32_t>(n));  // NaN too
  const int64_t count = pixel.size(), rows = (count + kBf16Rows - 1) / kBf16Rows * kBf16Rows;
  if (count == 0) return void(std::fill(out, out + a.query_pixels, 0.f));
  const int64_t size = prior_blocks(a) * rows * kPriorDepth;
  Scratch memory(size + (engine ? size / 2 : 0) + rows);
  PriorSupport support{pixel.data(), count, rows, memory.data(), nullptr, memory.data() + size, engine};
  if (engine) support.bf16 = reinterpret_cast<uint16_t*>(memory.data() + size + rows);
  parallel_for(a.threads, (rows + kPackRows - 1) / kPackRows, [&](int64_t k) {
    FP_DISPATCH(prior_pack)(a, support, pair, k * kPackRows, std::min((k + 1) * kPackRows, rows));
  });
  for (int64_t n = 0; n < count; ++n)
    if (!std::isfinite(support.length[n])) return void(std::fill(out, out + a.query_pixels, NAN));
  parallel_for(a.threads, (a.query_pixels + kPriorTile - 1) / kPriorTile, [&](int64_t k) {
    FP_DISPATCH(prior_tile)(a, support, pair, k * kPriorTile, std::min((k + 1) * kPriorTile, a.query_pixels));
  });
}

// A row from 0 to 1.
void level(float* row, int64_t count) {
  const auto ends = std::minmax_element(row, row + count);
  const bool known = std::none_of(row, row + count, [](float x) { return std::isnan(x); });
  const float low = known ? *ends.first : NAN, range = *ends.second - low + kPriorLevelEps;
  for (int64_t n = 0; n < count; ++n) row[n] = (row[n] - low) / range;
}

}  // namespace

void prior_mask(const PriorMask& a) {
  for (int64_t pair = 0; pair < a.pairs; ++pair) {
    one_pair(a, bf16(a.precision), pair);
    level(a.out + pair * a.query_pixels, a.query_pixels);
  }
}

}  // namespace fastprompt
