#include <algorithm>
#include <cmath>

#include "common/interrupt.h"
#include "guidance/raster.h"

namespace fastprompt {
namespace {

class Pen {
 public:
  Pen(const ScribbleMap& a, int64_t stroke) : a_(a), channel_(a.channel[stroke]) {
    if (channel_ < 0 || channel_ >= a.channels) return;
    const int64_t first = a.first[stroke], last = a.first[stroke + 1];
    for (int64_t k = first; k < last; ++k) {
      if (k + 1 == last && k > first) break;
      segment(a.points + 2 * k, a.points + 2 * std::min(k + 1, last - 1));
    }
  }

 private:
  // Pixels p with |p - (the nearest point of the segment p0 p1)| <= radius.
  void segment(const double* p0, const double* p1) {
    const double low = std::min(p0[1], p1[1]) - a_.radius, high = std::max(p0[1], p1[1]) + a_.radius;
    const int64_t end = place(std::floor(high) + 1, a_.height);
    checkpoint();
    for (int64_t y = place(std::ceil(low), a_.height); y < end; ++y) {
      if (y % 64 == 0) checkpoint();
      double from = std::min(p0[0], p1[0]), to = std::max(p0[0], p1[0]);
      if (p1[1] != p0[1]) {  // only where the segment is within the radius of the row
        const double slope = (p1[0] - p0[0]) / (p1[1] - p0[1]);
        const double u = p0[0] + slope * (y - a_.radius - p0[1]), v = p0[0] + slope * (y + a_.radius - p0[1]);
        from = std::max(from, std::min(u, v)), to = std::min(to, std::max(u, v));
      }
      const int64_t last = place(std::floor(to + a_.radius) + 2, a_.width);
      for (int64_t x = place(std::ceil(from - a_.radius) - 1, a_.width); x < last; ++x)
        if (near(p0, p1, x, y)) draw(x, y);
    }
  }

  static int64_t place(double value, int64_t size) {
    return static_cast<int64_t>(std::clamp(value, 0.0, double(size)));
  }

  bool near(const double* p0, const double* p1, double x, double y) const {
    const double ux = p1[0] - p0[0], uy = p1[1] - p0[1], vx = x - p0[0], vy = y - p0[1];
    const double length = ux * ux + uy * uy;
    const double t = length > 0 ? std::clamp((ux * vx + uy * vy) / length, 0.0, 1.0) : 0.0;
    const double dx = vx - t * ux, dy = vy - t * uy;
    return dx * dx + dy * dy <= a_.radius * a_.radius;
  }

  void draw(int64_t x, int64_t y) const {
    for (int64_t c = 0; c < a_.channels; ++c) a_.out[(c * a_.height + y) * a_.width + x] = c == channel_;
  }

  const ScribbleMap& a_;
  const int64_t channel_;
};

}  // namespace

void scribble_map(const ScribbleMap& a) {
  std::fill(a.out, a.out + a.channels * a.height * a.width, 0.f);
  for (int64_t s = 0; s < a.strokes; ++s) Pen(a, s);
}

}  // namespace fastprompt
