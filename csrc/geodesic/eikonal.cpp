// Fast marching (Sethian, SIAM Review 41, 1999): pixels are accepted in the order of their times, from a binary heap.
// Upwind differences are of second order on an axis whose two nearest pixels are accepted, else of first order.
#include "geodesic/eikonal.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include "common/interrupt.h"
#include "geodesic/check.h"

namespace fastprompt {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// What one axis knows of the front: the time of the accepted neighbour, and of the pixel behind it (+inf: unknown).
struct Upwind {
  float near, far, spacing;
};

// The larger root t of  sum over the axes of ((t - u) / h)^2 = 1 / speed^2; NaN if the axes contradict each other.
// Float32 in this order is what makes a 2-D result bit-equal to FastGeodis. It costs accuracy where the time is
// thousands of times what one pixel adds: t^2 then swallows 1 / speed^2.
float solve_quadratic(const Upwind* axes, int count, float speed) {
  float q0 = -1 / (speed * speed), q1 = 0, q2 = 0;
  for (int k = 0; k < count; ++k) {
    const bool second = axes[k].far < kInf;
    const float u = second ? 1.0f / 3.0f * (4 * axes[k].near - axes[k].far) : axes[k].near;
    const float flat = 1 / (axes[k].spacing * axes[k].spacing), weight = second ? 2.25f * flat : flat;
    q0 += u * u * weight, q1 += -2 * u * weight, q2 += weight;
  }
  return (-q1 + std::sqrt(q1 * q1 - 4 * q2 * q0)) / (2 * q2);
}

// The time at a pixel. A front that comes along one axis, or along axes that contradict, is taken to first order.
float arrival(const Upwind* axes, int count, float speed) {
  if (count > 1) {
    const float t = solve_quadratic(axes, count, speed);
    if (t >= 0) return t;
  }
  float earliest = kInf;
  for (int k = 0; k < count; ++k) earliest = std::min(earliest, axes[k].near + axes[k].spacing / speed);
  return earliest;
}

class March {
 public:
  explicit March(const Eikonal& a)
      : a_(a),
        size_{a.nz, a.ny, a.nx},
        stride_{a.ny * a.nx, a.nx, 1},
        pixels_(a.nz * a.ny * a.nx),
        speed_(pixels_),
        best_(pixels_, kInf) {
    std::fill_n(a.out, pixels_, kInf);
    by_chunks(pixels_, [&](int64_t from, int64_t to) {
      for (int64_t p = from; p < to; ++p) speed_[p] = 1 / slowness(at(p));
    });
  }

  void run() {
    for (int64_t p = 0; p < pixels_; ++p)
      if (is_seed(at(p)) && speed_[p] > 0) a_.out[p] = 0;
    for (int64_t p = 0; p < pixels_; ++p)
      if (a_.out[p] == 0) visit_neighbours(p);
    for (int64_t n = 0; !heap_.empty(); ++n) {
      if (n % 1024 == 0) checkpoint();
      const auto [time, p] = heap_.top();
      heap_.pop();
      if (a_.out[p] < kInf) continue;  // an older entry of this pixel
      a_.out[p] = time;
      visit_neighbours(p);
    }
  }

 private:
  struct Pixel {
    int64_t index, at[3];
  };

  Pixel at(int64_t p) const { return {p, {p / stride_[0], p / stride_[1] % size_[1], p % size_[2]}}; }

  bool is_seed(const Pixel& p) const {
    const int64_t* stride = a_.seeds.stride + 2;
    const int64_t offset = p.at[0] * stride[0] + p.at[1] * stride[1] + p.at[2] * stride[2];
    return static_cast<const uint8_t*>(a_.seeds.data)[offset] != 0;
  }

  // +inf on a NaN pixel, which no front enters; a difference to a NaN pixel counts nothing.
  float slowness(const Pixel& p) const {
    static const float tiny = std::sqrt(std::numeric_limits<float>::epsilon());
    const int64_t* stride = a_.image.stride + 2;
    const int64_t offset = p.at[0] * stride[0] + p.at[1] * stride[1] + p.at[2] * stride[2];
    const int first = a_.volume ? 0 : 1;
    const float mean = a_.volume ? 1.0f / 3.0f : 0.5f;
    float gradient = 0;
    for (int64_t c = 0; c < a_.channels; ++c) {
      const float* here = static_cast<const float*>(a_.image.data) + c * a_.image.stride[1] + offset;
      if (std::isnan(*here)) return kInf;
      float sum = 0;
      for (int k = 2; k >= first; --k) {
        const float next = p.at[k] + 1 < size_[k] ? here[stride[k]] : 0.0f;
        const float difference = std::fabs(next - *here);
        if (!std::isnan(difference)) sum += difference;
      }
      gradient += mean * sum;
    }
    return a_.grad_weight * gradient + a_.step_weight + tiny;
  }

  void visit_neighbours(int64_t p) {
    const Pixel here = at(p);
    for (int k = 0; k < 3; ++k)
      for (int side = -1; side <= 1; side += 2) {
        Pixel q = here;
        q.index += side * stride_[k], q.at[k] += side;
        if (q.at[k] >= 0 && q.at[k] < size_[k] && a_.out[q.index] == kInf) update(q);
      }
  }

  void update(const Pixel& p) {
    Upwind axes[3];
    int count = 0;
    for (int k = 0; k < 3; ++k) {
      axes[count] = upwind(p, k);
      count += axes[count].near < kInf;
    }
    const float time = arrival(axes, count, speed_[p.index]);
    if (!(time < best_[p.index])) return;  // NaN too
    best_[p.index] = time;
    heap_.emplace(time, p.index);
  }

  Upwind upwind(const Pixel& p, int k) const {
    Upwind u{kInf, kInf, a_.spacing[k]};
    for (int side = -1; side <= 1; side += 2) {
      const auto time = [&](int steps) {
        const int64_t at = p.at[k] + side * steps;
        return at < 0 || at >= size_[k] ? kInf : a_.out[p.index + side * steps * stride_[k]];
      };
      if (!(time(1) < u.near)) continue;
      u.near = time(1);
      u.far = time(2) <= u.near ? time(2) : kInf;
    }
    return u;
  }

  using Waiting = std::pair<float, int64_t>;  // time, pixel: among equal times the lowest index goes first
  const Eikonal& a_;
  const int64_t size_[3], stride_[3], pixels_;
  std::vector<float> speed_;
  std::vector<float> best_;  // of the times in the heap, by pixel
  std::priority_queue<Waiting, std::vector<Waiting>, std::greater<Waiting>> heap_;
};

}  // namespace

void eikonal_distance(const Eikonal& a) {
  need(a.grad_weight >= 0 && a.grad_weight <= 1, "lam must be between 0 and 1");
  for (const float s : a.spacing) check_spacing(s);
  if (a.nz * a.ny * a.nx != 0) March(a).run();
}

}  // namespace fastprompt
