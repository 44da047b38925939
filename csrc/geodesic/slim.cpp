#include "geodesic/slim.h"

#include <algorithm>
#include <cmath>

#include "common/interrupt.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

constexpr int64_t kPause = 1 << 14;  // pixels between two checkpoints

// The costs of metric.h, of one edge. `sum` is over the channels.
template <Metric M>
struct Cost {
  float grad_weight, step_weight;
  explicit Cost(const Geodesic& a) : grad_weight(a.grad_weight), step_weight(a.step_weight) {}
  static float part(float d) { return M == Metric::fastgeodis ? std::fabs(d) : d * d; }
  float step(float length) const { return M == Metric::fastgeodis ? step_weight * length : length; }
  float reach(float from, float step, float sum) const {
    if (M == Metric::fastgeodis) return (from + step) + grad_weight * sum;
    if (M == Metric::geodistk_fm) return from + step * std::sqrt(sum);
    const double lambda = grad_weight;
    return from + step / static_cast<float>((1.0 - lambda) + lambda / (std::sqrt(sum) + 1e-5));
  }
};

template <Metric M>
class Slim {
 public:
  Slim(const Geodesic& a, const float* image, float* d)
      : a_(a), cost_(a), size_{a.nz, a.ny, a.nx}, stride_{a.ny * a.nx, a.nx, 1}, image_(image), d_(d) {
    for (int k = 0; k < 3; ++k) square_[k] = a.spacing[k] * a.spacing[k];
  }

  // Along every axis forth and back, as raster.simd.cpp does it.
  void raster() {
    for (int n = 0; n < a_.iterations; ++n)
      for (int axis = 0; axis < 3; ++axis) sweep(axis, 1), sweep(axis, -1);
  }

  // As toivanen.simd.cpp.
  void toivanen() {
    for (int n = 0; n < a_.iterations; ++n) pass(1), pass(-1);
  }

 private:
  void relax(int64_t p, int64_t q, float step) {
    float sum = Cost<M>::part(image_[p] - image_[q]);
    for (int64_t c = 1; c < a_.channels; ++c) {
      const float* i = image_ + c * size_[0] * stride_[0];
      sum = sum + Cost<M>::part(i[p] - i[q]);
    }
    const float reached = cost_.reach(d_[q], step, sum);
    d_[p] = reached < d_[p] ? reached : d_[p];
  }

  // Slice after slice takes from the one behind it. The others of the three axes are u and v.
  void sweep(int axis, int dir) {
    const int u = axis == 0 ? 1 : 0, v = axis == 2 ? 1 : 2;
    const int64_t slice = size_[u] * size_[v];
    for (int64_t n = 1; n < size_[axis]; ++n) {
      if (n % std::max<int64_t>(kPause / slice, 1) == 0) checkpoint();
      const int64_t here = (dir > 0 ? n : size_[axis] - 1 - n) * stride_[axis];
      for (int du = -1; du <= 1; ++du)
        for (int dv = -1; dv <= 1; ++dv) take(axis, u, v, here, here - dir * stride_[axis], du, dv);
    }
  }

  void take(int axis, int u, int v, int64_t here, int64_t behind, int du, int dv) {
    // Squares are added in the order of edge_steps: along x the y comes before the z.
    const float across = square_[axis == 2 ? v : u] * float((axis == 2 ? dv : du) != 0);
    const float along = square_[axis == 2 ? u : v] * float((axis == 2 ? du : dv) != 0);
    const float step = cost_.step(std::sqrt(square_[axis] + across + along));
    for (int64_t i = std::max(0, -du); i < std::min(size_[u], size_[u] - du); ++i)
      for (int64_t j = std::max(0, -dv); j < std::min(size_[v], size_[v] - dv); ++j)
        relax(here + i * stride_[u] + j * stride_[v], behind + (i + du) * stride_[u] + (j + dv) * stride_[v], step);
  }

  // Row by row, first from other rows, then pixel by pixel from the one beside it.
  void pass(int dir) {
    int64_t since = 0;
    for (int64_t m = 0; m < size_[0]; ++m)
      for (int64_t n = 0; n < size_[1]; ++n) {
        const int64_t z = dir > 0 ? m : size_[0] - 1 - m, y = dir > 0 ? n : size_[1] - 1 - n;
        for (const auto& other : kRows) take_row(z, y, dir, other);
        const float step = cost_.step(std::sqrt(square_[2]));
        for (int64_t k = 1; k < size_[2]; ++k) {
          if (++since % kPause == 0) checkpoint();
          const int64_t p = z * stride_[0] + y * stride_[1] + (dir > 0 ? k : size_[2] - 1 - k);
          relax(p, p - dir, step);
        }
        if (++since % kPause == 0) checkpoint();
      }
  }

  struct Other {
    int z, y, from, to;  // seen in the forward pass: a row, and its pixels x + from … x + to
  };
  static constexpr Other kRows[] = {{-1, -1, -1, 1}, {-1, 0, -1, 0}, {0, -1, -1, 1}, {1, -1, -1, 1}, {1, 0, -1, -1}};

  void take_row(int64_t z, int64_t y, int dir, const Other& other) {
    const int64_t oz = z + dir * other.z, oy = y + dir * other.y;
    if (oz < 0 || oz >= size_[0] || oy < 0 || oy >= size_[1]) return;
    for (int k = other.from; k <= other.to; ++k) {
      float length = 0.f;
      if (other.z) length += square_[0];
      if (other.y) length += square_[1];
      if (k) length += square_[2];
      const float step = cost_.step(std::sqrt(length));
      const int64_t dx = dir * k, to = z * stride_[0] + y * stride_[1], from = oz * stride_[0] + oy * stride_[1] + dx;
      for (int64_t x = std::max<int64_t>(0, -dx); x < std::min(size_[2], size_[2] - dx); ++x)
        relax(to + x, from + x, step);
    }
  }

  const Geodesic& a_;
  const Cost<M> cost_;
  const int64_t size_[3], stride_[3];  // z, y, x
  float square_[3];                    // of the spacing
  const float* image_;                 // (channels, nz, ny, nx), NaN where there is a barrier
  float* d_;
};

template <Metric M>
void scan(const Geodesic& a, const float* image, float* d) {
  Slim<M> slim(a, image, d);
  a.method == Method::raster ? slim.raster() : slim.toivanen();
}

}  // namespace

bool is_slim(const Geodesic& a) {
  const double pixels = double(a.nz) * a.ny * a.nx, halo = a.volume ? 2 : 0;
  const auto whole = [](double n) { return std::ceil(n / 16) * 16; };
  double padded = (a.nz + halo) * (whole(a.ny) + 2) * (whole(a.nx) + 16);
  double wanted = 3;
  if (a.method == Method::raster)
    padded += (a.nz + halo) * (whole(a.nx) + 2) * (whole(a.ny) + 16);
  else
    wanted = 2;
  return pixels >= 1 << 16 && padded > wanted * pixels;
}

void slim_scan(const Geodesic& a, int64_t b, int64_t set, int count) {
  const int64_t pixels = a.nz * a.ny * a.nx;
  Scratch image(a.channels * pixels);
  FP_DISPATCH(plain_image)(a, b, image.data());
  for (int k = 0; k < count; ++k) {
    float* d = a.out + (b * a.sets + set + k) * pixels;
    FP_DISPATCH(start_distances)(a, b, set + k, d);
    if (a.metric == Metric::geodistk)
      scan<Metric::geodistk>(a, image.data(), d);
    else if (a.metric == Metric::geodistk_fm)
      scan<Metric::geodistk_fm>(a, image.data(), d);
    else
      scan<Metric::fastgeodis>(a, image.data(), d);
  }
}

}  // namespace fastprompt
