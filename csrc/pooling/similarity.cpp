#include "pooling/similarity.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

constexpr int64_t kStream = 1024;  // pixels of a part: its sums stay in the L1 cache
constexpr float kDropped = -100;   // what MaskCLIP sets the similarity of a dropped class to

int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Rows that no pixel is sure enough of.
void drop(const Similarity& a, const SimilarityRows& rows, int64_t image, float* penalty) {
  const int64_t tiles = (a.pixels + kSimilarityTile - 1) / kSimilarityTile;
  std::vector<float> share(tiles * a.rows);
  parallel_for(a.threads, tiles, [&](int64_t k) {
    const int64_t first = k * kSimilarityTile, last = std::min(first + kSimilarityTile, a.pixels);
    FP_DISPATCH(similarity_tile)(a, rows, image, first, last, share.data() + k * a.rows);
  });
  for (int64_t r = 0; r < a.rows; ++r) {
    float most = 0;
    for (int64_t k = 0; k < tiles; ++k) most = std::max(most, share[k * a.rows + r]);
    penalty[r] = most < a.sharpest ? kDropped * (a.kind == SimilarityOutput::softmax ? a.temperature : a.scale) : 0;
  }
}

}  // namespace

void similarity(const Similarity& a) {
  const int64_t padded = up(a.rows, kBf16Rows), width = up(a.channels, kSimilarityUnit), each = padded * width;
  const bool stream = a.rows <= kFewRows && a.kind == SimilarityOutput::cosines && a.sharpest <= 0;
  const Bf16* engine = stream ? nullptr : bf16(a.precision);
  Scratch unit(a.row_images * each);
  std::vector<uint16_t> low(engine ? a.row_images * each : 0);
  for (int64_t b = 0; b < a.row_images; ++b) {
    FP_DISPATCH(similarity_unit)(a, b, padded, width, unit.data() + b * each);
    if (engine) engine->pack_in_order(unit.data() + b * each, each, low.data() + b * each, nullptr);
  }
  const int64_t size = stream ? kStream : kSimilarityTile, parts = (a.pixels + size - 1) / size;
  std::vector<float> penalty(a.sharpest > 0 ? a.batch * a.rows : 0);
  const auto rows_of = [&](int64_t image, bool drops) {
    const int64_t at = a.row_images == 1 ? 0 : image * each;
    return SimilarityRows{unit.data() + at, engine ? low.data() + at : nullptr, width, engine,
                          drops ? penalty.data() + image * a.rows : nullptr};
  };
  for (int64_t b = 0; a.sharpest > 0 && b < a.batch; ++b) drop(a, rows_of(b, false), b, penalty.data() + b * a.rows);
  parallel_for(a.threads, a.batch * parts, [&](int64_t k) {
    const int64_t image = k / parts, first = k % parts * size, last = std::min(first + size, a.pixels);
    const SimilarityRows rows = rows_of(image, a.sharpest > 0);
    stream ? FP_DISPATCH(similarity_stream)(a, rows, image, first, last)
           : FP_DISPATCH(similarity_tile)(a, rows, image, first, last, nullptr);
  });
}

}  // namespace fastprompt
