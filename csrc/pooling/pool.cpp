#include "pooling/pool.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/parallel.h"
#include "common/scratch.h"
#include "common/sizes.h"

namespace fastprompt {
namespace {

struct Axis {
  std::vector<int32_t> at;
  std::vector<float> low, high;

  PoolAxis view() const { return {at.data(), low.data(), high.data()}; }
};

// Where the `outputs` positions of torch's bilinear resizing lie between the `inputs`.
Axis bilinear(int64_t inputs, int64_t outputs, bool align_corners) {
  Axis axis;
  for (int64_t x = 0; x < outputs; ++x) {
    const double scale =
        align_corners ? (outputs > 1 ? double(inputs - 1) / double(outputs - 1) : 0) : double(inputs) / double(outputs);
    const double place = align_corners ? scale * x : std::max(0., scale * (x + 0.5) - 0.5);
    const int64_t at = std::min(int64_t(place), inputs - 1);
    const double high = at + 1 < inputs ? place - at : 0;
    axis.at.push_back(int32_t(at)), axis.low.push_back(float(1 - high)), axis.high.push_back(float(high));
  }
  return axis;
}

// Every patch of `inputs` / `outputs` positions has one mean.
Axis average(int64_t inputs, int64_t outputs) {
  Axis axis;
  const int64_t patch = inputs / outputs;
  for (int64_t x = 0; x < inputs; ++x) {
    axis.at.push_back(int32_t(x / patch));
    axis.low.push_back(1.f / patch), axis.high.push_back(0);
  }
  return axis;
}

struct Hats {
  std::vector<int32_t> first, count;
  std::vector<float> weight;
  int64_t step = 0;
};

Hats hats(const Axis& axis, int64_t width) {
  Hats made;
  const int64_t size = axis.at.size();
  std::vector<int64_t> begin(width, size), end(width, 0);
  for (int64_t x = 0; x < size; ++x)
    for (int64_t a = axis.at[x]; a <= axis.at[x] + (axis.high[x] != 0); ++a)
      begin[a] = std::min(begin[a], x), end[a] = std::max(end[a], x + 1);
  for (int64_t a = 0; a < width; ++a) {
    const int64_t first = begin[a] < end[a] ? begin[a] / kPoolUnit * kPoolUnit : 0;
    const int64_t count = begin[a] < end[a] ? (end[a] - first + kPoolUnit - 1) / kPoolUnit * kPoolUnit : 0;
    made.first.push_back(int32_t(first)), made.count.push_back(int32_t(count));
    made.step = std::max(made.step, count);
  }
  made.weight.assign(width * made.step, 0.f);
  for (int64_t x = 0; x < size; ++x) {
    const int64_t a = axis.at[x];
    made.weight[a * made.step + x - made.first[a]] = axis.low[x];
    if (axis.high[x] != 0) made.weight[(a + 1) * made.step + x - made.first[a + 1]] = axis.high[x];
  }
  return made;
}

std::vector<int32_t> begins(const Axis& axis, int64_t height) {
  std::vector<int32_t> begin(height + 1);
  for (int64_t a = 0; a <= height; ++a)
    begin[a] = int32_t(std::lower_bound(axis.at.begin(), axis.at.end(), a) - axis.at.begin());
  return begin;
}

// Rows behind the masks become those of the background, then all 0 or 1 if hard.
void finish(const MaskedPool& a, const float* ones, int64_t count, int64_t pitch, float* weights) {
  for (int64_t m = 0; a.background && m < a.masks; ++m)
    for (int64_t n = 0; n < count; ++n) weights[(a.masks + m) * pitch + n] = ones[n] - weights[m * pitch + n];
  for (int64_t m = 0; m < a.rows(); ++m) {
    float* row = weights + m * pitch;
    for (int64_t n = 0; a.hard && n < count; ++n) row[n] = row[n] > a.threshold ? 1.f : 0.f;
    for (int64_t n = count; n < pitch; ++n) row[n] = 0;
  }
}

constexpr int64_t kBands = 8, kChannels = 32;  // parts of a mask; channels of a part

void pool(const PoolCall& call) {
  const MaskedPool& a = call.args;
  const int64_t rows = a.rows(), pixels = a.height * a.width, each = rows * call.pitch;
  const int64_t groups = (rows + kPoolGroup - 1) / kPoolGroup, vectors = call.pitch;
  Scratch weights((a.batch * rows + 1) * call.pitch), packed(a.batch * each);
  float* ones = weights.data() + a.batch * each;
  const int64_t bands = a.masks * a.batch < 2 * a.threads ? std::min(kBands, a.height) : 1;
  parallel_for(a.threads, (a.batch * a.masks + a.background) * bands, [&](int64_t k) {
    const int64_t mask = k / bands, band = k % bands;
    const bool all = mask == a.batch * a.masks;
    float* to = all ? ones : weights.data() + (mask / a.masks * rows + mask % a.masks) * call.pitch;
    FP_DISPATCH(pool_weights)(call, all ? -1 : mask, a.height * band / bands, a.height * (band + 1) / bands, to);
  });
  std::vector<PoolGroup> group(a.batch * groups);
  std::vector<int32_t> live(a.batch * groups * vectors);
  std::vector<float> area(a.batch * rows);
  parallel_for(a.threads, a.batch, [&](int64_t b) {
    finish(a, ones, pixels, call.pitch, weights.data() + b * each);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * kPoolGroup, at = b * each + first * call.pitch;
      group[b * groups + g] = {&live[(b * groups + g) * vectors], 0, packed.data() + at, &area[b * rows + first]};
      FP_DISPATCH(pool_group)(call, weights.data() + at, std::min(kPoolGroup, rows - first), &group[b * groups + g]);
    }
  });
  const int64_t parts = (a.channels + kChannels - 1) / kChannels;
  parallel_for(a.threads, a.batch * parts, [&](int64_t k) {
    const int64_t b = k / parts, first = k % parts * kChannels, last = std::min(first + kChannels, a.channels);
    for (int64_t g = 0; g < groups; ++g) FP_DISPATCH(pool_channels)
    (call, group[b * groups + g], std::min(kPoolGroup, rows - g * kPoolGroup), a.features + b * a.channels * pixels,
     first, last, a.out + (b * rows + g * kPoolGroup) * a.channels);
  });
}

}  // namespace

void masked_pool(const MaskedPool& a) {
  Axis rows, columns;
  need(a.height * a.width > 0 && a.mask_height * a.mask_width > 0, "features and mask must have pixels");
  need(a.resize != PoolResize::average || (a.mask_height % a.height == 0 && a.mask_width % a.width == 0),
       "mask must have a multiple of the features' size");
  if (a.resize == PoolResize::mask) {
    rows = bilinear(a.mask_height, a.height, a.align_corners);
    columns = bilinear(a.mask_width, a.width, a.align_corners);
  } else if (a.resize == PoolResize::average) {
    rows = average(a.mask_height, a.height), columns = average(a.mask_width, a.width);
  } else {
    rows = bilinear(a.height, a.mask_height, a.align_corners);
    columns = bilinear(a.width, a.mask_width, a.align_corners);
  }
  const bool splat = a.resize != PoolResize::mask;
  const Hats made = splat ? hats(columns, a.width) : Hats{};
  const std::vector<int32_t> begin = splat ? begins(rows, a.height) : std::vector<int32_t>{};
  const int64_t pitch = (a.height * a.width + kPoolUnit - 1) / kPoolUnit * kPoolUnit;
  pool({a,
        rows.view(),
        columns.view(),
        begin.data(),
        {made.first.data(), made.count.data(), made.weight.data(), made.step},
        pitch});
}

}  // namespace fastprompt
