#include "decoder/low_rank.h"

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {

void low_rank_prepare(const LowRankImage& a) {
  const int64_t tile = FP_DISPATCH(prompt_tile)(), tiles = (a.pixels + tile - 1) / tile;
  const int64_t number = a.layout.half ? sizeof(uint16_t) : sizeof(float);
  prefer_huge_pages(a.out, a.images * tiles * tile * a.layout.prepared_rows() * number);
  parallel_for(a.threads, a.images * tiles, [&](int64_t k) {
    FP_DISPATCH(low_rank_prepare_tile)(a, k / tiles, k % tiles);
  });
}

// U + padded_rank U + tiles (1 + padded_rank) tile
int64_t low_rank_floats(const LowRankLayout& l, int64_t pixels) {
  const int64_t tile = FP_DISPATCH(prompt_tile)(), tiles = (pixels + tile - 1) / tile;
  return l.prompt_rows() * (l.up + tiles * tile);
}

// Many groups run side by side, a thread each; few are shared among the threads.
void low_rank(const LowRank& a) {
  const TwoWay& t = a.two_way;
  prefer_huge_pages(t.image_out, t.prompts * low_rank_floats(a.layout, t.pixels) * sizeof(float));
  const int64_t prompts = t.prompts / t.images;  // of an image
  const int64_t share = (t.prompts + t.threads - 1) / t.threads, most = share < prompts ? share : prompts;
  const int64_t size = most < kLowRankGroup ? most : kLowRankGroup, groups = (prompts + size - 1) / size;
  const bool many = groups * t.images >= t.threads;
  parallel_for(many ? t.threads : 1, groups * t.images, [&](int64_t k) {
    const int64_t first = k % groups * size, count = prompts - first < size ? prompts - first : size;
    FP_DISPATCH(low_rank_group)(a, k / groups * prompts + first, count, many ? 1 : t.threads);
  });
}

}  // namespace fastprompt
