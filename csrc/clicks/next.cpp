#include "clicks/next.h"

#include "common/parallel.h"

namespace fastprompt {

void next_click(const NextClick& args) {
  const int threads = args.images * args.height * args.width < 1 << 16 ? 1 : args.threads;
  parallel_for(threads, args.images, [&](int64_t image) { FP_DISPATCH(click_of_image)(args, image); });
}

}  // namespace fastprompt
