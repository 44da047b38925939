#include "decoder/mlp.h"

#include "common/parallel.h"

namespace fastprompt {

void run_mlps(const Mlp* mlps, int64_t count, int threads) {
  parallel_for(threads, count, [&](int64_t k) { FP_DISPATCH(run_mlp)(mlps[k]); });
}

}  // namespace fastprompt
