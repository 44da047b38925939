#include "pooling/film.h"

#include "common/simd.h"

namespace fastprompt {
namespace FP_ISA {

// NOTE: a product and a sum, each rounded: the bits of gamma * x + beta in torch.
void film_rows(const Film& a, int64_t first, int64_t last) {
  const int64_t rows = a.last ? a.inner : a.channels, size = a.last ? a.channels : a.inner;
  for (int64_t r = first; r < last; ++r) {
    const int64_t image = r / rows, at = image * a.channels + (a.last ? 0 : r % rows);
    const float* x = a.x + (a.images == 1 ? r % rows : r) * size;
    const float *gamma = a.gamma + at, *beta = a.beta + at;
    float* out = a.out + r * size;
    int64_t n = 0;
    for (; n + N <= size; n += N) {
      const vf g = a.last ? loadu(gamma + n) : broadcast(*gamma), b = a.last ? loadu(beta + n) : broadcast(*beta);
      storeu(out + n, loadu(x + n) * g + b);
    }
    for (; n < size; ++n) out[n] = x[n] * gamma[a.last ? n : 0] + beta[a.last ? n : 0];
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
