#include "decoder/two_way.h"

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
void two_way_prepare(const TwoWayImage& a) {
  const int64_t tile = FP_DISPATCH(prompt_tile)(), tiles = (a.pixels + tile - 1) / tile;
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
