#include "masks/head.h"

#include "common/parallel.h"

namespace fastprompt {

void mask_head(const MaskHead& a) {
  parallel_for(a.threads, a.prompts * a.height, [&](int64_t k) {
    FP_DISPATCH(mask_head_row)(a, k / a.height, k % a.height);
  });
}

}  // namespace fastprompt
