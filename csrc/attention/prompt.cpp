#include "attention/prompt.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

constexpr int64_t kPartsPerThread = 4;  // of the image, for one prompt: a thread that loses its core delays little

int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

}  // namespace

// Prompts run side by side. Where there are fewer than threads, each one's image is cut into parts, whose sums are
// merged in their order: the result depends on the number of threads, but not on which thread did what.
void prompt_pass(const PromptPass& a) {
  if (a.prompts * a.pixels * a.channels == 0) return;
  const int64_t tile = FP_DISPATCH(prompt_tile)(), tiles = (a.pixels + tile - 1) / tile;
  const int64_t wanted = a.threads == 1 ? 1 : std::max<int64_t>(1, kPartsPerThread * a.threads / a.prompts);
  const int64_t parts = std::min(tiles, wanted), rows = a.heads * a.tokens;
  const int64_t size = a.to_image.form == Form::absorbed ? a.channels : a.width;
  const int64_t each = a.to_image.form == Form::none ? 0 : round_up(2 * rows, 16) + round_up(rows * size, 16);
  Scratch memory(a.prompts * parts * each);
  std::vector<Partial> sums(a.prompts * parts);
  for (size_t k = 0; k < sums.size(); ++k) {
    float* at = memory.data() + k * each;
    sums[k] = {at, at + rows, at + round_up(2 * rows, 16)};
  }
  parallel_for(a.threads, a.prompts * parts, [&](int64_t k) {
    const int64_t part = k % parts;
    FP_DISPATCH(prompt_tiles)(a, k / parts, tiles * part / parts, tiles * (part + 1) / parts, sums[k]);
  });
  if (a.to_image.form == Form::none) return;
  parallel_for(a.threads, a.prompts, [&](int64_t k) {
    FP_DISPATCH(prompt_merge)(a, k, sums.data() + k * parts, static_cast<int>(parts));
  });
}

}  // namespace fastprompt
