#include "pruning/score.h"

#include <algorithm>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {

constexpr int64_t kTokensOfPart = 256;

void cosine_scores(const CosineScores& a) {
  const int64_t width = (a.channels + kPromptUnit - 1) / kPromptUnit * kPromptUnit, each = a.prompts * width;
  Scratch unit(a.prompt_images * each);
  for (int64_t b = 0; b < a.prompt_images; ++b) FP_DISPATCH(unit_prompts)(a, b, width, unit.data() + b * each);
  const int64_t parts = (a.tokens + kTokensOfPart - 1) / kTokensOfPart;
  parallel_for(a.threads, a.batch * parts, [&](int64_t k) {
    const int64_t image = k / parts, first = k % parts * kTokensOfPart;
    const float* prompts = unit.data() + (a.prompt_images == 1 ? 0 : image * each);
    FP_DISPATCH(score_tokens)(a, prompts, width, image, first, std::min(first + kTokensOfPart, a.tokens));
  });
}

}  // namespace fastprompt
