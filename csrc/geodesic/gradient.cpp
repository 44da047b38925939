// Gradient of the exact distance. D(p) is a sum along one shortest path, so the paths form a forest with the seeds as
// roots: what arrives at a pixel goes on to its parent, and each edge hands the image its own derivative.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <queue>
#include <tuple>
#include <vector>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "geodesic/check.h"
#include "geodesic/geodesic.h"

namespace fastprompt {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class Forest {
 public:
  // image: (channels, pixels) float32, NaN where there is a barrier.
  Forest(const Geodesic& a, const float* image, const float* start)
      : a_(a), image_(image), pixels_(a.nz * a.ny * a.nx), parent_(pixels_, -1), distance_(start, start + pixels_) {
    order_.reserve(pixels_);
    grow();
  }

  // grad: dL/dD; adds dL/dI to grad_image and writes dL/dstart.
  void descend(const float* grad, float sign, float* grad_image, float* grad_start) const {
    std::vector<double> flow(pixels_, 0.0);
    for (const int64_t p : order_) flow[p] = double(sign) * grad[p];
    std::fill(grad_start, grad_start + pixels_, 0.f);
    for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
      if ((it - order_.rbegin()) % 1024 == 0) checkpoint();
      const int64_t p = *it, q = parent_[p];
      if (q < 0) {
        grad_start[p] = static_cast<float>(flow[p]);
        continue;
      }
      flow[q] += flow[p];
      if (flow[p] != 0.0) edge_gradient(p, q, flow[p], grad_image);
    }
  }

 private:
  using Entry = std::tuple<float, int, int64_t>;  // distance, level, number: the least first

  // Dijkstra's algorithm with the float32 association of the kernels. Edges may cost nothing: the level is the edges to
  // the nearest pixel that is a root or has a parent at a lower distance. So the parent of a pixel is the first by
  // (distance, level, number) of those that its shortest paths come from, a rule that needs no queue.
  void grow() {
    std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> front;
    std::vector<char> settled(pixels_, 0);
    for (int64_t p = 0; p < pixels_; ++p)
      if (distance_[p] < kInf) front.push({distance_[p], 0, p});
    for (int64_t n = 0; !front.empty(); ++n) {
      if (n % 1024 == 0) checkpoint();
      const auto [d, steps, p] = front.top();
      front.pop();
      if (settled[p] || d > a_.limit) continue;
      settled[p] = 1;
      order_.push_back(p);
      neighbours(p, [&, from = d, level = steps](int64_t q) {
        const float candidate = reach(from, p, q);
        if (settled[q] || !(candidate < distance_[q])) return;
        distance_[q] = candidate, parent_[q] = p;
        front.push({candidate, candidate == from ? level + 1 : 0, q});
      });
    }
  }

  template <class Visit>
  void neighbours(int64_t p, Visit visit) const {
    const int64_t x = p % a_.nx, y = p / a_.nx % a_.ny, z = p / a_.nx / a_.ny;
    for (int64_t c = std::max<int64_t>(z - 1, 0); c <= std::min(z + 1, a_.nz - 1); ++c)
      for (int64_t b = std::max<int64_t>(y - 1, 0); b <= std::min(y + 1, a_.ny - 1); ++b)
        for (int64_t a = std::max<int64_t>(x - 1, 0); a <= std::min(x + 1, a_.nx - 1); ++a)
          if (const int64_t q = (c * a_.ny + b) * a_.nx + a; q != p) visit(q);
  }

  float length(int64_t p, int64_t q) const {
    const float z = a_.spacing[0] * a_.spacing[0], y = a_.spacing[1] * a_.spacing[1];
    const float x = a_.spacing[2] * a_.spacing[2];
    const bool dz = p / a_.nx / a_.ny != q / a_.nx / a_.ny, dy = p / a_.nx % a_.ny != q / a_.nx % a_.ny;
    return std::sqrt((dz ? z : 0.f) + (dy ? y : 0.f) + (p % a_.nx != q % a_.nx ? x : 0.f));
  }

  float difference(int64_t p, int64_t q, int64_t c) const { return image_[c * pixels_ + p] - image_[c * pixels_ + q]; }

  float norm(int64_t p, int64_t q) const {
    float sum = 0.f;
    for (int64_t c = 0; c < a_.channels; ++c) {
      const float d = difference(p, q, c);
      sum = sum + (a_.metric == Metric::fastgeodis ? std::fabs(d) : d * d);
    }
    return a_.metric == Metric::fastgeodis ? sum : std::sqrt(sum);
  }

  float geodistk_speed(float norm) const {
    const double lambda = a_.grad_weight;
    return static_cast<float>((1.0 - lambda) + lambda / (norm + 1e-5));
  }

  float reach(float from, int64_t p, int64_t q) const {
    const float step = length(p, q), n = norm(p, q);
    if (a_.metric == Metric::fastgeodis) return (from + a_.step_weight * step) + a_.grad_weight * n;
    if (a_.metric == Metric::geodistk_fm) return from + step * n;
    return from + step / geodistk_speed(n);
  }

  // d cost / d I_c(p) = slope * (sign or I_c(p) - I_c(q)); the same with the other sign for q.
  void edge_gradient(int64_t p, int64_t q, double flow, float* grad_image) const {
    const float n = norm(p, q);
    double slope = a_.grad_weight;
    if (a_.metric != Metric::fastgeodis) {
      if (n == 0.f) return;
      const double speed = geodistk_speed(n), shifted = n + 1e-5;
      slope = a_.metric == Metric::geodistk_fm ? 1.0 : a_.grad_weight / (shifted * shifted * speed * speed);
      slope *= length(p, q) / n;
    }
    for (int64_t c = 0; c < a_.channels; ++c) {
      const float d = difference(p, q, c);
      const double g = flow * slope * (a_.metric == Metric::fastgeodis ? (d > 0.f) - (d < 0.f) : d);
      grad_image[c * pixels_ + p] += static_cast<float>(g);
      grad_image[c * pixels_ + q] -= static_cast<float>(g);
    }
  }

  const Geodesic& a_;
  const float* image_;
  const int64_t pixels_;
  std::vector<int64_t> parent_, order_;  // order_: nearest first, parents before their children
  std::vector<float> distance_;
};

}  // namespace

void geodesic_distance_backward(const GeodesicGradient& g) {
  Geodesic a = g.forward;
  check_numbers(a);
  const int64_t pixels = a.nz * a.ny * a.nx, maps = a.sets, sides = a.two_sided ? 2 : 1;
  a.sets = maps * sides;
  std::memset(g.grad_image, 0, sizeof(float) * a.batch * a.channels * pixels);
  parallel_for(a.threads, a.batch, [&](int64_t b) {
    std::vector<float> image(a.channels * pixels), start(pixels);
    FP_DISPATCH(plain_image)(a, b, image.data());
    for (int64_t set = 0; set < a.sets; ++set) {
      FP_DISPATCH(start_distances)(a, b, set, start.data());
      const Forest forest(a, image.data(), start.data());
      forest.descend(g.grad + (b * maps + set / sides) * pixels, set % sides ? -1.f : 1.f,
                     g.grad_image + b * a.channels * pixels, g.grad_start + (b * a.sets + set) * pixels);
    }
  });
}

}  // namespace fastprompt
