#include "guidance/box.h"

#include <cstring>

#include "common/interrupt.h"
#include "common/math.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

float larger(float x, float y) { return x > y ? x : y; }
float smaller(float x, float y) { return x < y ? x : y; }

// Signed distances of N pixels of a row, which is u above or below the box (less than 0 inside).
vf signed_distance(vf x, float x0, float x1, float u) {
  const vf zero = broadcast(0.f), across = max(broadcast(x0) - x, x - broadcast(x1)), down = broadcast(u);
  const vf dx = max(across, zero), dy = max(down, zero);
  return sqrt(dx * dx + dy * dy) + min(max(across, down), zero);
}

}  // namespace

void box_rows(const BoxMaps& a, int64_t image, int64_t first, int64_t last) {
  float steps[N];
  for (int k = 0; k < N; ++k) steps[k] = k;
  const float* boxes = a.corners + image * a.boxes * 4;
  for (int64_t y = first; y < last; ++y) {
    float* out = a.out + image * a.image_stride + y * a.width;
    for (int64_t c = 0; c < a.width; c += N) {
      if (c == 0 || a.boxes > 1000) checkpoint();
      const vf x = broadcast(float(c)) + loadu(steps);
      vf best = broadcast(__builtin_inff());
      for (const float* b = boxes; b < boxes + 4 * a.boxes; b += 4) {
        if (b[0] != b[0] || b[1] != b[1] || b[2] != b[2] || b[3] != b[3]) continue;
        const float row = y, u = larger(smaller(b[1], b[3]) - row, row - larger(b[1], b[3]));
        best = min(signed_distance(x, smaller(b[0], b[2]), larger(b[0], b[2]), u), best);
      }
      const vf zero = broadcast(0.f);
      const vf moved = min(max(broadcast(a.offset) + best, broadcast(a.low)), broadcast(a.high));
      const vf value = a.distance ? moved : best <= zero ? broadcast(1.f) : zero;
      float row[N];
      storeu(row, value);
      std::memcpy(out + c, row, (c + N <= a.width ? N : a.width - c) * sizeof(float));
    }
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
