#include "guidance/click.h"

#include <cstring>

#include "common/interrupt.h"
#include "common/math.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int64_t kColumns = 64;  // of a block; its table of squares stays in the L1 cache
constexpr int kSide = 4;          // vectors side by side in registers

float larger(float x, float y) { return x > y ? x : y; }
float smaller(float x, float y) { return x < y ? x : y; }

template <ClickEncoding E>
vf encoded(vf d2, float scale, float clip, float divisor) {
  const vf s = broadcast(scale), zero = broadcast(0.f);
  if (E == ClickEncoding::disk) return d2 <= s ? broadcast(1.f) : zero;
  if (E == ClickEncoding::euclidean) return min(sqrt(d2), broadcast(clip)) / broadcast(divisor);
  if (E == ClickEncoding::tanh) return tanh(sqrt(d2) * s);
  const vf t = d2 * s;
  return t <= broadcast(87.f) ? exp(zero - t) : zero;
}

// The rows of a band, in blocks of columns. A click whose nearest pixel of a block is further than some other click's
// furthest is nowhere the nearest: of 24 clicks at 1024 x 1024, 2 to 4 are left. Rounding is monotone, so that is
// exact.
template <ClickEncoding E>
class Band {
 public:
  Band(const ClickPlan& p, int64_t map, int64_t first, int64_t last)
      : p_(p),
        a_(p.args),
        map_(map),
        first_(first),
        last_(last),
        memory_((p.first[map + 1] - p.first[map]) * (kColumns + 4) + a_.scales),
        beyond_(memory_.data()),
        x_(beyond_ + a_.scales) {
    const int64_t all = p.first[map + 1] - p.first[map];
    y_ = x_ + all, near_ = y_ + all, kept_y_ = near_ + all, squares_ = kept_y_ + all;
  }

  void run() {
    gather();
    if (all_beyond(clicks_ == 0 ? p_.start[map_] : 0.f)) return fill(0, a_.width);
    for (int64_t x = 0; x < a_.width; x += kColumns) block(x, x + kColumns < a_.width ? kColumns : a_.width - x);
  }

 private:
  // The clicks that are not too far above or below the band to count: of small disks, a few.
  void gather() {
    float far = p_.reach[0];
    for (int64_t k = 1; k < a_.scales; ++k) far = larger(far, p_.reach[k]);
    const float top = first_, bottom = last_ - 1;
    for (int64_t k = p_.first[map_]; k < p_.first[map_ + 1]; ++k) {
      const float dy = larger(larger(top - p_.y[k], p_.y[k] - bottom), 0.f);
      if (dy * dy > far) continue;
      x_[clicks_] = p_.x[k], y_[clicks_++] = p_.y[k];
    }
  }

  // Notes which scales have reached their limit at this d2.
  bool all_beyond(float nearest) {
    bool all = true;
    for (int64_t k = 0; k < a_.scales; ++k) {
      beyond_[k] = nearest > p_.reach[k];
      all = all && beyond_[k] != 0;
    }
    return all;
  }

  float* at(int64_t scale, int64_t y, int64_t x) const {
    const int64_t image = map_ / a_.channels, map = map_ % a_.channels * a_.scales + scale;
    return a_.out + image * a_.image_stride + (map * a_.height + y) * a_.width + x;
  }

  void block(int64_t x, int64_t columns) {
    if (clicks_ > 100) checkpoint();
    const float left = x, right = x + columns - 1, top = first_, bottom = last_ - 1;
    float least = p_.start[map_], bound = p_.start[map_];
    for (int64_t k = 0; k < clicks_; ++k) {
      const float u = left - x_[k], v = right - x_[k], s = top - y_[k], t = bottom - y_[k];
      const float dx = larger(larger(u, -v), 0.f), dy = larger(larger(s, -t), 0.f);
      const float far_x = larger(-u, v), far_y = larger(-s, t);
      near_[k] = dy * dy + dx * dx;
      least = smaller(least, near_[k]);
      bound = smaller(bound, far_y * far_y + far_x * far_x);
    }
    const bool all = all_beyond(least);
    fill(x, columns);
    if (all) return;
    kept_ = 0;
    for (int64_t k = 0; k < clicks_; ++k)
      if (!(near_[k] > bound)) keep(k, left);
    write(x, columns);
  }

  // Puts the squares of a click along x into the table.
  void keep(int64_t click, float left) {
    float* to = squares_ + kept_ * kColumns;
    for (int64_t j = 0; j < kColumns; ++j) {
      const float d = left + j - x_[click];
      to[j] = d * d;
    }
    kept_y_[kept_++] = y_[click];
  }

  // The scales that have reached their limit.
  void fill(int64_t x, int64_t columns) const {
    for (int64_t k = 0; k < a_.scales; ++k)
      for (int64_t y = first_; y < last_ && beyond_[k] != 0; ++y) {
        float* to = at(k, y, x);
        const float value = p_.limit;
        for (int64_t j = 0; j < columns; ++j) to[j] = value;
      }
  }

  void write(int64_t x, int64_t columns) const {
    for (int64_t y = first_; y < last_; ++y)
      for (int64_t j = 0; j < columns; j += kSide * N) {
        vf best[kSide];
        distances(y, j, best);
        for (int64_t k = 0; k < a_.scales; ++k)
          if (beyond_[k] == 0) put(best, a_.scale[k], at(k, y, x) + j, columns - j);
      }
  }

  void put(const vf* best, float scale, float* to, int64_t columns) const {
    for (int v = 0; v < kSide && v * N < columns; ++v) {
      const vf value = encoded<E>(best[v], scale, a_.clip, a_.divisor);
      if ((v + 1) * N <= columns) {
        storeu(to + v * N, value);
      } else {
        float rest[N];
        storeu(rest, value);
        std::memcpy(to + v * N, rest, (columns - v * N) * sizeof(float));
      }
    }
  }

  void distances(int64_t y, int64_t column, vf* best) const {
    for (int v = 0; v < kSide; ++v) best[v] = broadcast(p_.start[map_]);
    for (int64_t k = 0; k < kept_; ++k) {
      const float d = y - kept_y_[k];
      const vf square = broadcast(d * d);
      const float* from = squares_ + k * kColumns + column;
      for (int v = 0; v < kSide; ++v) best[v] = min(square + loadu(from + v * N), best[v]);
    }
  }

  const ClickPlan& p_;
  const ClickMaps& a_;
  const int64_t map_, first_, last_;
  const Scratch memory_;
  float *beyond_, *x_, *y_, *near_, *kept_y_, *squares_;  // beyond_[scale]: 1 where the block is the limit
  int64_t clicks_ = 0, kept_ = 0;                         // of the band; of the block
};

}  // namespace

void click_band(const ClickPlan& p, int64_t map, int64_t first, int64_t last) {
  switch (p.args.encoding) {
    case ClickEncoding::disk:
      return Band<ClickEncoding::disk>(p, map, first, last).run();
    case ClickEncoding::euclidean:
      return Band<ClickEncoding::euclidean>(p, map, first, last).run();
    case ClickEncoding::tanh:
      return Band<ClickEncoding::tanh>(p, map, first, last).run();
    default:
      return Band<ClickEncoding::gaussian>(p, map, first, last).run();
  }
}

void stretch_map(float* map, int64_t pixels) {
  float low = map[0], high = map[0];
  for (int64_t k = 1; k < pixels; ++k) low = smaller(map[k], low), high = larger(map[k], high);
  const float range = larger(high - low, 1e-8f);
  for (int64_t k = 0; k < pixels; ++k) map[k] = (map[k] - low) / range;
}

}  // namespace FP_ISA
}  // namespace fastprompt
