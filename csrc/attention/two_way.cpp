#include "attention/two_way.h"

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

int64_t tiles_of(int64_t pixels) {
  const int64_t tile = FP_DISPATCH(prompt_tile)();
  return (pixels + tile - 1) / tile;
}

}  // namespace

int64_t two_way_floats(int64_t images, int64_t channels, int64_t pixels, int64_t inner) {
  return images * tiles_of(pixels) * FP_DISPATCH(two_way_tile_floats)(channels, inner);
}

void two_way_prepare(const TwoWayImage& a) {
  const int64_t tiles = tiles_of(a.pixels);
  parallel_for(a.threads, a.images * tiles, [&](int64_t k) {
    FP_DISPATCH(two_way_prepare_tile)(a, k / tiles, k % tiles);
  });
}

// Many prompts run side by side, a thread each; few are shared among the threads.
void two_way(const TwoWay& a) {
  prefer_huge_pages(a.image_out, a.prompts * a.channels * a.pixels * sizeof(float));
  const bool many = a.prompts >= a.threads;
  parallel_for(many ? a.threads : 1, a.prompts, [&](int64_t k) {
    FP_DISPATCH(two_way_prompt)(a, k, many ? 1 : a.threads);
  });
}

}  // namespace fastprompt
