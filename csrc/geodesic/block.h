// A padded block of distances and image, and how it is filled, transposed and written back.
#pragma once
#include <cstring>
#include <initializer_list>

#include "common/scratch.h"
#include "geodesic/relax.h"

namespace fastprompt {
namespace FP_ISA {

constexpr float kInf = __builtin_inff();
constexpr float kNaN = __builtin_nanf("");

static inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// Distances (`sets` planes) and image (`channels` planes) of nz x ny x nx pixels, as the sweeps want them: aligned rows
// with a halo around them, a vector left and right of each row, a row before and after each plane, a plane before and
// after a volume. The halo holds +inf in d and NaN in i, so borders need no code: an edge from or to it costs NaN, and
// a NaN candidate loses every min(). Rows and columns are rounded up to whole tiles of N x N pixels, also halo.
struct Block {
  int64_t nz, ny, nx;
  bool volume;
  int sets;
  ptrdiff_t row, slab;  // floats from row to row, plane to plane
  Planes planes{};
  float *d = nullptr, *i = nullptr;  // pixel (0, 0, 0) of set 0 and channel 0

  Block(int64_t nz, int64_t ny, int64_t nx, bool volume, int64_t channels, int sets)
      : nz(nz), ny(ny), nx(nx), volume(volume), sets(sets) {
    row = N + round_up(nx, N);
    if (row * sizeof(float) % 4096 == 0) row += N;  // else a column of pixels shares one cache set
    slab = (round_up(ny, N) + 2) * row;
    planes.channels = static_cast<int>(channels);
    planes.vectors = static_cast<int>((nx + N - 1) / N);
    planes.channel = planes.set = (nz + (volume ? 2 : 0)) * slab + 5 * 64;  // 5 lines: planes do not alias
  }
  size_t floats() const { return size_t(planes.channels + sets) * planes.channel + 2 * N; }
  float* place(float* memory) {  // returns the memory behind the block
    d = memory + (volume ? slab : 0) + row + N;
    i = d + sets * planes.set;
    return memory + round_up(floats(), 16);
  }
  ptrdiff_t at(int64_t z, int64_t y) const { return z * slab + y * row; }
  float* plane(int k) const { return d + k * planes.set; }  // the image follows the distances

  void clear_row(int64_t z, int64_t y) {
    for (int k = 0; k < sets + planes.channels; ++k) fill(plane(k) + at(z, y) - N, row + N, k < sets ? kInf : kNaN);
  }
  // The halo before a row, and the columns behind its last pixel. The halo behind those is the next row's: threads that
  // clear two rows at a time must not write the same floats.
  void clear_ends(int64_t z, int64_t y) {
    for (int k = 0; k < sets + planes.channels; ++k) {
      float* start = plane(k) + at(z, y);
      fill(start - N, N, k < sets ? kInf : kNaN);
      fill(start + nx, row - N - nx, k < sets ? kInf : kNaN);
    }
  }
  void clear_halo_rows() {
    for (int64_t z = 0; z < nz; ++z) {
      clear_row(z, -1);
      for (int64_t y = ny; y < round_up(ny, N) + 1; ++y) clear_row(z, y);
    }
    for (int64_t z = -1; volume && z <= nz; z += nz + 1)
      for (int64_t y = -1; y < round_up(ny, N) + 1; ++y) clear_row(z, y);
  }
  void clear_all() {
    clear_halo_rows();
    for (int64_t z = 0; z < nz; ++z)
      for (int64_t y = 0; y < ny; ++y) clear_row(z, y);
  }
  static void fill(float* p, ptrdiff_t n, float x) {
    for (ptrdiff_t j = 0; j < n; ++j) p[j] = x;
  }
};

static inline float half_to_float(uint16_t h) {
  const uint32_t magnitude = uint32_t(h & 0x7fff) << 13, sign = uint32_t(h & 0x8000) << 16;
  uint32_t bits = magnitude;
  float x;
  if ((h & 0x7c00) == 0x7c00) {
    bits |= 0x7f800000u;  // inf, NaN
    std::memcpy(&x, &bits, 4);
  } else {
    std::memcpy(&x, &bits, 4);
    x *= 5.192296858534828e33f;  // 2^112 moves the exponent bias, denormals included
  }
  std::memcpy(&bits, &x, 4);
  bits |= sign;
  std::memcpy(&x, &bits, 4);
  return x;
}

static inline float bfloat_to_float(uint16_t h) {
  const uint32_t bits = uint32_t(h) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

template <class T, class F>
static inline void convert_row(const T* src, int64_t stride, float* dst, int64_t n, F to_float) {
  if (stride == 1)
    for (int64_t x = 0; x < n; ++x) dst[x] = to_float(src[x]);
  else
    for (int64_t x = 0; x < n; ++x) dst[x] = to_float(src[x * stride]);
}

// n pixels of a view, from (b, c, z, y, x) on, as floats.
static inline void read_row(const View& v, int64_t b, int64_t c, int64_t z, int64_t y, int64_t x, float* dst,
                            int64_t n) {
  const int64_t offset = b * v.stride[0] + c * v.stride[1] + z * v.stride[2] + y * v.stride[3] + x * v.stride[4];
  const int64_t s = v.stride[4];
  const auto same = [](auto value) { return static_cast<float>(value); };
  if (v.dtype == DType::f32) {
    const float* src = static_cast<const float*>(v.data) + offset;
    if (s == 1)
      std::memcpy(dst, src, n * sizeof(float));
    else
      convert_row(src, s, dst, n, same);
  } else if (v.dtype == DType::u8) {
    convert_row(static_cast<const uint8_t*>(v.data) + offset, s, dst, n, same);
  } else if (v.dtype == DType::f16) {
    convert_row(static_cast<const uint16_t*>(v.data) + offset, s, dst, n, half_to_float);
  } else {
    convert_row(static_cast<const uint16_t*>(v.data) + offset, s, dst, n, bfloat_to_float);
  }
}

static inline void start_row(const Geodesic& a, int64_t b, int64_t set, int64_t z, int64_t y, int64_t x0, float* d,
                             int64_t n) {
  read_row(a.start, b, a.two_sided ? set / 2 : set, z, y, x0, d, n);
  const bool complement = a.two_sided && set % 2;
  const float v = a.v;
  // NOTE: v may be +inf, and inf * 0 is NaN: a seed starts at 0 whatever v is.
  if (a.start_kind == Start::nonzero)
    for (int64_t x = 0; x < n; ++x) d[x] = (d[x] != 0.f) != complement ? 0.f : v;
  else if ((a.start_kind == Start::cost) != complement)
    for (int64_t x = 0; x < n; ++x) d[x] = d[x] == 0.f ? 0.f : v * d[x];
  else
    for (int64_t x = 0; x < n; ++x) d[x] = d[x] == 1.f ? 0.f : v * (1.f - d[x]);
}

static inline const uint8_t* barrier_row(const Geodesic& a, int64_t b, int64_t z, int64_t y, int64_t x) {
  const int64_t* s = a.barrier.stride;
  return static_cast<const uint8_t*>(a.barrier.data) + b * s[0] + z * s[2] + y * s[3] + x * s[4];
}

// Pixels [x, x + n) of row (z, y): starts of the sets [set, set + sets) into d, image into i. A barrier has no value
// (NaN: no edge leads to it) and no start.
static inline void read_pixels(const Geodesic& a, int64_t b, int64_t set, int sets, int64_t z, int64_t y, int64_t x,
                               float* d, float* i, const Planes& planes, int64_t n) {
  for (int k = 0; k < sets; ++k) start_row(a, b, set + k, z, y, x, d + k * planes.set, n);
  for (int64_t c = 0; c < a.channels; ++c) read_row(a.image, b, c, z, y, x, i + c * planes.channel, n);
  if (!a.barrier.data) return;
  const uint8_t* wall = barrier_row(a, b, z, y, x);
  for (int64_t j = 0; j < n; ++j) {
    if (!wall[j * a.barrier.stride[4]]) continue;
    i[j] = kNaN;
    for (int k = 0; k < sets; ++k) d[k * planes.set + j] = kInf;
  }
}

// Row (z, y) of the seed sets [set, set + block.sets) and of the image.
static inline void prepare_row(const Geodesic& a, int64_t b, int64_t set, Block& block, int64_t z, int64_t y) {
  const ptrdiff_t p = block.at(z, y);
  block.clear_ends(z, y);
  read_pixels(a, b, set, block.sets, z, y, 0, block.d + p, block.i + p, block.planes, a.nx);
}

}  // namespace FP_ISA
}  // namespace fastprompt
