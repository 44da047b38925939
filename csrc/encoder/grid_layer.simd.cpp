#include "encoder/grid_layer.h"

#include "common/math.h"

namespace fastprompt {
namespace FP_ISA {

void pool_rows(const float* x, int64_t first, int64_t last, int64_t columns, int64_t channels, int64_t pool,
               float* out) {
  const int64_t pooled = columns / pool;
  for (int64_t y = first; y < last; ++y)
    for (int64_t n = 0; n < pooled; ++n) {
      const float* corner = x + (y * pool * columns + n * pool) * channels;
      float* to = out + (y * pooled + n) * channels;
      for (int64_t c = 0; c < channels; c += N) {
        vf most = loadu(corner + c);
        for (int64_t k = 1; k < pool * pool; ++k)
          most = max(loadu(corner + (k / pool * columns + k % pool) * channels + c), most);
        storeu(to + c, most);
      }
    }
}

}  // namespace FP_ISA
}  // namespace fastprompt
