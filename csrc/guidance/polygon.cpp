#include <algorithm>
#include <cmath>
#include <vector>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "guidance/raster.h"

namespace fastprompt {
namespace {

struct Crossing {
  double x;
  int winding;
  bool operator<(const Crossing& other) const { return x < other.x; }
};

struct Edge {
  double x0, y0, x1, y1;
};

constexpr double kFixed = 65536;  // cv2 follows an edge in steps of this part of a pixel

class Polygon {
 public:
  Polygon(const PolygonMasks& a, int64_t image) : a_(a), out_(a.out + image * a.height * a.width) {
    std::fill(out_, out_ + a.height * a.width, uint8_t(0));
    const double* points = a.points + image * a.vertices * 2;
    for (int64_t r = 0; r < a.rings; ++r) {
      const int64_t from = a.first[r], count = a.first[r + 1] - from;
      for (int64_t k = 0; k < count; ++k) {
        const double *p = points + 2 * (from + k), *q = points + 2 * (from + (k + 1) % count);
        edges_.push_back({whole(p[0]), whole(p[1]), whole(q[0]), whole(q[1])});
      }
    }
    cross();
    for (int64_t y = 0; y < a.height; ++y) {
      if (y % 64 == 0) checkpoint();
      fill(y);
    }
    for (size_t k = 0; a.boundary && k < edges_.size(); ++k) {
      if (k % 64 == 0) checkpoint();
      line(edges_[k]);
    }
  }

 private:
  // Where the rows y0 <= y < y1 meet each edge, row by row: first counted, then written.
  void cross() {
    first_.assign(a_.height + 2, 0);
    for (const Edge& e : edges_) each_row(e, [&](int64_t y, double, int) { ++first_[y + 2]; });
    for (int64_t y = 2; y < a_.height + 2; ++y) first_[y] += first_[y - 1];
    found_.resize(first_[a_.height + 1]);
    for (const Edge& e : edges_)
      each_row(e, [&](int64_t y, double x, int winding) { found_[first_[y + 1]++] = {x, winding}; });
  }

  // Always from the upper end, so that neighbours share an edge exactly.
  template <class Body>
  void each_row(Edge e, const Body& body) const {
    checkpoint();
    const int winding = e.y0 < e.y1 ? 1 : -1;
    if (winding < 0) e = {e.x1, e.y1, e.x0, e.y0};
    const double height = e.y1 - e.y0, width = e.x1 - e.x0;
    const double step = std::trunc(width * kFixed / height) / kFixed;
    const int64_t last = row(std::ceil(e.y1));
    for (int64_t y = row(std::ceil(e.y0)); y < last; ++y)
      body(y, e.x0 + (a_.boundary ? (y - e.y0) * step : (y - e.y0) * width / height), winding);
  }

  double whole(double x) const { return a_.boundary ? std::nearbyint(x) : x; }
  int64_t row(double y) const { return static_cast<int64_t>(std::clamp(y, 0.0, double(a_.height))); }
  int64_t column(double x) const { return static_cast<int64_t>(std::clamp(x, 0.0, double(a_.width))); }

  void fill(int64_t y) {
    Crossing* found = found_.data() + first_[y];
    const int64_t count = first_[y + 1] - first_[y];
    std::sort(found, found + count);
    int inside = 0;
    for (int64_t k = 0; k + 1 < count; ++k) {
      inside += a_.non_zero ? found[k].winding : 1;
      if (a_.non_zero ? inside == 0 : inside % 2 == 0) continue;
      const double from = found[k].x, to = found[k + 1].x;
      const int64_t first = column(std::ceil(from));
      const int64_t last = column(a_.boundary ? std::floor(to) + 1 : std::ceil(to));
      if (first < last) std::fill(out_ + y * a_.width + first, out_ + y * a_.width + last, uint8_t(1));
    }
  }

  // The pixel of every step along the longer axis, from the left end; a tie stays with the pixel before.
  void line(Edge e) {
    if (e.x1 < e.x0) e = {e.x1, e.y1, e.x0, e.y0};
    const double dx = e.x1 - e.x0, dy = std::abs(e.y1 - e.y0), sign = e.y1 < e.y0 ? -1 : 1;
    const bool flat = dx >= dy;
    const double steps = flat ? dx : dy, other = flat ? dy : dx;
    const double begin = flat ? -e.x0 : sign > 0 ? -e.y0 : e.y0 - (a_.height - 1);
    const double count = (flat ? a_.width : a_.height) + std::max(begin, 0.0);
    for (double k = std::max(begin, 0.0); k <= std::min(steps, count); ++k) {
      const double aside = steps > 0 ? std::ceil((2 * other * k - steps) / (2 * steps)) : 0;
      const double x = e.x0 + (flat ? k : aside), y = e.y0 + sign * (flat ? aside : k);
      if (x >= 0 && y >= 0 && x < a_.width && y < a_.height)
        out_[static_cast<int64_t>(y) * a_.width + static_cast<int64_t>(x)] = 1;
    }
  }

  const PolygonMasks& a_;
  uint8_t* out_;
  std::vector<Edge> edges_;
  std::vector<int64_t> first_;  // the crossings of row y are found_[first_[y] … first_[y + 1])
  std::vector<Crossing> found_;
};

}  // namespace

void polygon_masks(const PolygonMasks& a) {
  parallel_for(a.threads, a.images, [&](int64_t k) { Polygon(a, k); });
}

}  // namespace fastprompt
