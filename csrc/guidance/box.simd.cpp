#include "guidance/box.h"

#include <cstring>

#include "common/interrupt.h"
#include "common/math.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int64_t kFew = 4;                       // boxes: fewer are not worth a choice
constexpr int64_t kLeastRows = 8, kColumns = 32;  // of a tile that is not split; a multiple of N

float larger(float x, float y) { return x > y ? x : y; }
float smaller(float x, float y) { return x < y ? x : y; }

// Signed distances of N pixels of a row, which is u above or below the box (less than 0 inside).
vf signed_distance(vf x, float x0, float x1, float u) {
  const vf zero = broadcast(0.f), across = max(broadcast(x0) - x, x - broadcast(x1)), down = broadcast(u);
  const vf dx = max(across, zero), dy = max(down, zero);
  return sqrt(dx * dx + dy * dy) + min(max(across, down), zero);
}

float signed_distance(float across, float down) {
  const float dx = larger(across, 0.f), dy = larger(down, 0.f);
  return __builtin_sqrtf(dx * dx + dy * dy) + smaller(larger(across, down), 0.f);
}

// Bounds of the signed distances in a tile. Every operation of the distance is rounded and grows with `across` and
// `down`, so the bounds hold for the rounded numbers, to the bit.
float least(const Box& b, const Tile& t) {
  return signed_distance(larger(b.x0 - float(t.x1 - 1), float(t.x0) - b.x1),
                         larger(b.y0 - float(t.y1 - 1), float(t.y0) - b.y1));
}
float greatest(const Box& b, const Tile& t) {
  return signed_distance(larger(b.x0 - float(t.x0), float(t.x1 - 1) - b.x1),
                         larger(b.y0 - float(t.y0), float(t.y1 - 1) - b.y1));
}

// Of a box in another one, whose distances are nowhere larger.
bool inside(const Box& b, const Box& of) { return b.x0 >= of.x0 && b.x1 <= of.x1 && b.y0 >= of.y0 && b.y1 <= of.y1; }

void swap(Box& x, Box& y) {
  const Box kept = x;
  x = y, y = kept;
}

// Brings those boxes to the front that can decide a pixel of the tile, and returns their number.
int64_t choose(bool distance, Box* boxes, int64_t count, const Tile& t) {
  float bound = __builtin_inff();
  for (int64_t k = 0; k < count; ++k) {
    const float d = greatest(boxes[k], t);
    if (d < bound) bound = d, swap(boxes[0], boxes[k]);
  }
  if (!distance && bound <= 0.f) return 1;  // all pixels are in this one
  int64_t kept = count ? 1 : 0;
  for (int64_t k = 1; k < count; ++k) {
    const float d = least(boxes[k], t);
    if ((distance ? d < bound : d <= 0.f) && !inside(boxes[k], boxes[0])) swap(boxes[kept++], boxes[k]);
  }
  return kept;
}

void paint(const BoxMaps& a, float* map, const Box* boxes, int64_t count, const Tile& t) {
  float steps[N];
  for (int k = 0; k < N; ++k) steps[k] = k;
  for (int64_t y = t.y0; y < t.y1; ++y) {
    float* out = map + y * a.width;
    for (int64_t c = t.x0; c < t.x1; c += N) {
      if (c == t.x0 || count > 1000) checkpoint();
      const vf x = broadcast(float(c)) + loadu(steps);
      vf best = broadcast(__builtin_inff());
      for (const Box* b = boxes; b < boxes + count; ++b)
        best = min(signed_distance(x, b->x0, b->x1, larger(b->y0 - float(y), float(y) - b->y1)), best);
      const vf zero = broadcast(0.f);
      const vf moved = min(max(broadcast(a.offset) + best, broadcast(a.low)), broadcast(a.high));
      const vf value = a.distance ? moved : best <= zero ? broadcast(1.f) : zero;
      float row[N];
      storeu(row, value);
      std::memcpy(out + c, row, (c + N <= t.x1 ? N : t.x1 - c) * sizeof(float));
    }
  }
}

}  // namespace

// Halves the tile until few boxes matter in it: a pixel looks at those near it, not at all.
void box_tile(const BoxMaps& a, float* map, Box* boxes, int64_t count, const Tile& tile) {
  const int64_t rows = tile.y1 - tile.y0, columns = tile.x1 - tile.x0;
  if (count > kFew) count = choose(a.distance, boxes, count, tile);
  if (count <= kFew || (rows <= kLeastRows && columns <= kColumns)) return paint(a, map, boxes, count, tile);
  Tile first = tile, second = tile;
  if (columns > kColumns && columns > rows) {
    first.x1 = second.x0 = tile.x0 + (columns / 2 + kColumns - 1) / kColumns * kColumns;
  } else {
    first.y1 = second.y0 = tile.y0 + rows / 2;
  }
  box_tile(a, map, boxes, count, first);
  box_tile(a, map, boxes, count, second);
}

}  // namespace FP_ISA
}  // namespace fastprompt
