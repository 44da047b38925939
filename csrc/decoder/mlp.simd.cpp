#include "decoder/mlp.h"

#include "common/gemm.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {

void run_mlp(const Mlp& a) {
  int64_t widest = 0;
  for (int64_t n = 1; n < a.layers; ++n) widest = a.widths[n] > widest ? a.widths[n] : widest;
  Scratch memory(2 * a.prompts * widest);
  float* rooms[2] = {memory.data(), memory.data() + a.prompts * widest};
  const float* x = a.x;
  int64_t x_row = a.x_row;
  for (int64_t n = 0; n < a.layers; ++n) {
    const bool last = n + 1 == a.layers;
    const int64_t width = a.widths[n + 1];
    float* y = last ? a.out : rooms[n % 2];
    linear(a.weights[n].weight, x, x_row, y, width, width, a.prompts, a.widths[n]);
    for (int64_t k = 0; k < a.prompts * width; ++k) {
      const float value = y[k] + a.weights[n].bias[k % width];
      y[k] = last || value > 0 ? value : 0;
    }
    x = y, x_row = width;
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
