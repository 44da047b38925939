#include "guidance/region.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/interrupt.h"

namespace fastprompt {
namespace {

constexpr int64_t kNoClick = -1, kOutside = -2;

// Where click k lies, as y * width + x.
int64_t pixel(const RegionClicks& c, int64_t k, int64_t height, int64_t width) {
  const float x = c.points[2 * k], y = c.points[2 * k + 1];
  if (!std::isfinite(x) || !std::isfinite(y) || (x < 0 && y < 0)) return kNoClick;
  const float column = std::floor(x + 0.5f), row = std::floor(y + 0.5f);
  if (column < 0 || row < 0 || column >= width || row >= height) return kOutside;
  return static_cast<int64_t>(row) * width + static_cast<int64_t>(column);
}

// The pixels of the clicks of every channel; the first click outside, or -1.
int64_t locate(const RegionClicks& c, int64_t height, int64_t width, std::vector<std::vector<int64_t>>* pixels) {
  pixels->assign(c.channels, {});
  for (int64_t k = 0; k < c.clicks; ++k)
    for (int64_t channel = 0; channel < c.channels; ++channel) {
      if (c.labels[k] != c.of_labels[channel]) continue;
      const int64_t at = pixel(c, k, height, width);
      if (at == kOutside) return k;
      if (at != kNoClick) (*pixels)[channel].push_back(at);
    }
  return -1;
}

struct Centroid {
  double x, y, pixels;
};

std::vector<Centroid> centroids(const SuperpixelMap& a) {
  std::vector<Centroid> table(a.regions, Centroid{});
  for (int64_t y = 0; y < a.height; ++y) {
    if (y % 64 == 0) checkpoint();
    for (int64_t x = 0; x < a.width; ++x) {
      Centroid& c = table[a.region[y * a.width + x]];
      c.x += x, c.y += y, c.pixels += 1;
    }
  }
  for (Centroid& c : table) c.x /= c.pixels, c.y /= c.pixels;  // NaN where there is no pixel: nobody asks
  return table;
}

}  // namespace

int64_t superpixel_map(const SuperpixelMap& a) {
  std::vector<std::vector<int64_t>> pixels;
  const int64_t bad = locate(a.clicks, a.height, a.width, &pixels);
  if (bad >= 0) return bad;
  const std::vector<Centroid> table = centroids(a);
  std::vector<float> value(a.regions);
  const int64_t count = a.height * a.width;
  for (int64_t channel = 0; channel < a.clicks.channels; ++channel) {
    std::fill(value.begin(), value.end(), a.clip);
    std::vector<int64_t> clicked;
    for (const int64_t at : pixels[channel]) clicked.push_back(a.region[at]);
    std::sort(clicked.begin(), clicked.end());
    clicked.erase(std::unique(clicked.begin(), clicked.end()), clicked.end());
    for (const int64_t r : clicked)
      by_chunks(a.regions, [&](int64_t from, int64_t to) {
        for (int64_t s = from; s < to; ++s)
          value[s] = std::min(value[s], float(std::hypot(table[s].x - table[r].x, table[s].y - table[r].y)));
      });
    float* out = a.out + channel * count;
    by_chunks(count, [&](int64_t from, int64_t to) {
      for (int64_t k = from; k < to; ++k) out[k] = value[a.region[k]];
    });
  }
  return -1;
}

int64_t proposal_votes(const ProposalVotes& a) {
  std::vector<std::vector<int64_t>> pixels;
  const int64_t bad = locate(a.clicks, a.height, a.width, &pixels);
  if (bad >= 0) return bad;
  const int64_t count = a.height * a.width;
  for (int64_t channel = 0; channel < a.clicks.channels; ++channel) {
    float* out = a.out + channel * count;
    std::fill(out, out + count, 0.f);
    for (int64_t p = 0; p < a.proposals; ++p) {
      const uint8_t* member = a.member + p * count;
      checkpoint();
      int votes = 0;
      for (const int64_t at : pixels[channel]) votes += member[at] != 0;
      if (votes == 0) continue;
      const float weight = votes;
      by_chunks(count, [&](int64_t from, int64_t to) {
        for (int64_t k = from; k < to; ++k) out[k] += member[k] != 0 ? weight : 0.f;
      });
    }
  }
  return -1;
}

void prompt_vectors(const PromptVectors& a) {
  const int64_t sizes[] = {a.width, a.height}, length = a.width + a.height + 3;
  for (int64_t k = 0; k < a.prompts; ++k) {
    if (k % 64 == 0) checkpoint();
    float* out = a.out + k * length;
    std::fill(out, out + length, 0.f);
    out[length - 3 + a.bit[k]] = 1;
    for (int axis = 0; axis < 2; out += sizes[axis], ++axis) {
      const double centre = a.centre[2 * k + axis], sigma = a.sigma[2 * k + axis], radius = a.radius[2 * k + axis];
      const int64_t last = std::clamp(centre + radius + 1, 0.0, double(sizes[axis]));
      for (int64_t i = std::clamp(centre - radius, 0.0, double(sizes[axis])); i < last; ++i)
        out[i] = std::exp(-(i - centre) * (i - centre) / (2 * sigma * sigma)) + (i == centre ? a.peak[k] : 0.f);
    }
  }
}

}  // namespace fastprompt
