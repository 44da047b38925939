#include "geodesic/euclidean.h"

#include <cstring>

#include "common/interrupt.h"
#include "common/scratch.h"
#include "common/simd.h"

namespace fastprompt {
namespace FP_ISA {

constexpr float kInf = __builtin_inff();
constexpr int V = N == 16 ? 2 : 4;  // vectors of a block; half or twice as many are 5 to 30 % slower
constexpr int64_t kBlock = V * N;
constexpr int64_t kPause = 1 << 16;  // pixels of a row between two checkpoints; shorter rows have none
static_assert(kBlock + N <= kEuclideanMargin, "the tables of squares are too short");

static inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }
static inline int64_t smaller(int64_t x, int64_t y) { return x < y ? x : y; }
static inline void fill(float* p, int64_t n, float x) {
  for (int64_t j = 0; j < n; ++j) p[j] = x;
}

// The lowest lane that holds the minimum.
static inline int first_minimum(vf x) {
#if defined(__AVX512F__)
  const vf least = broadcast(_mm512_reduce_min_ps(x));
#else
  float lane[N], low = kInf;
  storeu(lane, x);
  for (int k = 0; k < N; ++k) low = lane[k] < low ? lane[k] : low;
  const vf least = broadcast(low);
#endif
  return __builtin_ctzll(~less_mask(least, x));
}

// Lower envelope of n parabolas: out[x] = min over c of  g[c] + square[x - c].
// If C is the best c of pixel x, the pixels left of x have a best c <= C and those right of x one >= C. So halving
// finds the best c of every kBlock-th pixel, and a block of pixels tries the candidates between those of its two ends,
// about kBlock + 1 of them on average. Neither divisions nor differences: 3 ns a pixel.
struct Envelope {
  const float* g;       // n values, >= 0 or +inf, then N of +inf
  const float* square;  // see EuclideanPlan
  int64_t n;
  int32_t* best;  // room for n / kBlock + 3

  // The best c in [low, high] of pixel x.
  int64_t search(int64_t x, int64_t low, int64_t high) const {
    const float* s = square - x;
    vf least = broadcast(kInf), round = broadcast(0.f), at = round;
    for (int64_t c = low; c <= high; c += N, round = round + broadcast(1.f)) {
      const vf candidate = loadu(g + c) + loadu(s + c);
      at = candidate < least ? round : at;
      least = min(candidate, least);
    }
    float rounds[N];
    storeu(rounds, at);
    const int lane = first_minimum(least);
    return smaller(low + static_cast<int64_t>(rounds[lane]) * N + lane, high);
  }

  void search_all() const {
    const int64_t last = (n - 1 + kBlock - 1) / kBlock;  // best[k] belongs to pixel k N, best[last] to pixel n - 1
    best[0] = static_cast<int32_t>(search(0, 0, n - 1));
    best[last] = static_cast<int32_t>(search(n - 1, best[0], n - 1));
    int64_t step = 1;
    while (2 * step < last) step *= 2;
    for (; step > 0; step /= 2) {
      if (n > kPause) checkpoint();
      for (int64_t k = step; k < last; k += 2 * step)
        best[k] = static_cast<int32_t>(search(k * kBlock, best[k - step], best[smaller(k + step, last)]));
    }
    best[last + 1] = best[last];
  }

  // The kBlock pixels from x on. Candidates beyond `high` do no harm, so there is no remainder.
  void evaluate(int64_t x, int64_t low, int64_t high, vf* least) const {
    vf even[V], odd[V];
    for (int v = 0; v < V; ++v) even[v] = odd[v] = broadcast(kInf);
    const float* s = square + x;
    for (int64_t c = low; c <= high; c += 2) {
      const vf g0 = broadcast(g[c]), g1 = broadcast(g[c + 1]);
      for (int v = 0; v < V; ++v) even[v] = min(loadu(s - c + v * N) + g0, even[v]);
      for (int v = 0; v < V; ++v) odd[v] = min(loadu(s - c - 1 + v * N) + g1, odd[v]);
    }
    for (int v = 0; v < V; ++v) least[v] = min(even[v], odd[v]);
  }

  // `unit` is that of the roots; 0: leave the squares.
  void write(float* out, float unit) const {
    search_all();
    for (int64_t x = 0; x < n; x += kBlock) {
      if (x && x % kPause == 0) checkpoint();
      vf value[V];
      evaluate(x, best[x / kBlock], best[x / kBlock + 1], value);
      for (int v = 0; v < V && unit != 0.f; ++v) value[v] = sqrt(value[v]) * broadcast(unit);
      if (n - x >= kBlock) {
        for (int v = 0; v < V; ++v) storeu(out + x + v * N, value[v]);
      } else {
        float rest[kBlock];
        for (int v = 0; v < V; ++v) storeu(rest + v * N, value[v]);
        std::memcpy(out + x, rest, (n - x) * sizeof(float));
      }
    }
  }
};

static inline int64_t best_floats(int64_t n) { return round_up(n / kBlock + 3, N); }
static inline int64_t line_floats(int64_t n) { return round_up(n, N) + N; }

// Row y of a plane, from `room` where it is not contiguous.
static inline const uint8_t* mask_row(const EuclideanTransform& a, int64_t plane, int64_t y, uint8_t* room) {
  const int64_t* s = a.mask.stride;
  const uint8_t* row = static_cast<const uint8_t*>(a.mask.data) + plane / a.nz * s[0] + plane % a.nz * s[2] + y * s[3];
  if (s[4] == 1) return row;
  for (int64_t x = 0; x < a.nx; ++x) room[x] = row[x * s[4]];
  return room;
}

// count = rows since a seed; rows seen if there was none.
static inline void count_bytes(const uint8_t* mask, uint8_t* count, int64_t n) {
  for (int64_t x = 0; x < n; ++x) count[x] = mask[x] ? 0 : count[x] + 1;
}

static inline void to_floats(const uint8_t* count, float* out, int64_t n, int none) {
  for (int64_t x = 0; x < n; ++x) out[x] = count[x] == none ? kInf : static_cast<float>(count[x]);
}

// Rows from either end of a band to its nearest seed, for the bands next door.
void euclidean_scan(const EuclideanPlan& p, int64_t plane, int64_t band) {
  const EuclideanTransform& a = p.args;
  const int64_t y0 = band * p.rows, rows = smaller(p.rows, a.ny - y0);
  Scratch memory(round_up(a.nx, 64) / 2);
  uint8_t *count = reinterpret_cast<uint8_t*>(memory.data()), *room = count + round_up(a.nx, 64);
  float* state = p.above + (plane * p.bands + band + 1) * a.nx;
  std::memset(count, 0, a.nx);
  for (int64_t y = 0; y < rows; ++y) count_bytes(mask_row(a, plane, y0 + y, room), count, a.nx);
  if (band + 1 < p.bands) to_floats(count, state, a.nx, static_cast<int>(rows));
  state = p.below + (plane * p.bands + band - 1) * a.nx;
  std::memset(count, 0, a.nx);
  for (int64_t y = rows; y-- > 0;) count_bytes(mask_row(a, plane, y0 + y, room), count, a.nx);
  if (band > 0) to_floats(count, state, a.nx, static_cast<int>(rows));
}

static inline void first_row(const uint8_t* mask, float* up, int64_t n) {
  for (int64_t x = 0; x < n; ++x) up[x] = mask[x] ? 0.f : kInf;
}

static inline void rows_up(const uint8_t* mask, const float* before, float* up, int64_t n) {
  for (int64_t x = 0; x < n; ++x) up[x] = mask[x] ? 0.f : before[x] + 1.f;
}

// `up` becomes the squares.
static inline void rows_down(float* up, float* down, int64_t n, float square) {
  for (int64_t x = 0; x < n; ++x) {
    const float d = up[x] == 0.f ? 0.f : down[x] + 1.f, least = up[x] < d ? up[x] : d;
    down[x] = d;
    up[x] = least * least * square;
  }
}

// The rows of a band: distances within their plane, squared if there are other planes to come.
void euclidean_band(const EuclideanPlan& p, int64_t plane, int64_t band) {
  const EuclideanTransform& a = p.args;
  const int64_t y0 = band * p.rows, rows = smaller(p.rows, a.ny - y0), row = line_floats(a.nx), nx = a.nx;
  const bool alone = p.bands == 1;
  Scratch memory((rows + 1) * row + best_floats(nx));
  float *up = memory.data(), *down = up + rows * row;
  int32_t* best = reinterpret_cast<int32_t*>(down + row);
  uint8_t* room = reinterpret_cast<uint8_t*>(down);  // not in use yet
  const float* before = p.above + (plane * p.bands + band) * nx;
  for (int64_t y = 0; y < rows; ++y, before = up + (y - 1) * row) {
    const uint8_t* mask = mask_row(a, plane, y0 + y, room);
    y == 0 && alone ? first_row(mask, up, nx) : rows_up(mask, before, up + y * row, nx);
  }
  if (alone)
    fill(down, nx, kInf);
  else
    std::memcpy(down, p.below + (plane * p.bands + band) * nx, nx * sizeof(float));
  for (int64_t y = rows; y-- > 0;) {
    float* g = up + y * row;
    rows_down(g, down, nx, p.y_square);
    fill(g + nx, row - nx, kInf);
    Envelope{g, p.x_square, nx, best}.write(a.out + (plane * a.ny + y0 + y) * nx, a.nz == 1 ? p.unit : 0.f);
  }
}

// A column of a volume that is thinner than a vector.
static inline void thin_depth(const EuclideanPlan& p, float* pixels) {
  const EuclideanTransform& a = p.args;
  const int64_t plane = a.ny * a.nx, line = line_floats(a.nz);
  Scratch memory(2 * line + best_floats(a.nz));
  float *from = memory.data(), *done = from + line;
  int32_t* best = reinterpret_cast<int32_t*>(done + line);
  for (int64_t x = 0; x < a.nx; ++x) {
    for (int64_t z = 0; z < a.nz; ++z) from[z] = pixels[z * plane + x];
    fill(from + a.nz, line - a.nz, kInf);
    Envelope{from, p.z_square, a.nz, best}.write(done, p.unit);
    for (int64_t z = 0; z < a.nz; ++z) pixels[z * plane + x] = done[z];
  }
}

// The pixels (z, y, x) of one y: the envelope along z, from columns that are transposed N at a time.
void euclidean_depth(const EuclideanPlan& p, int64_t batch, int64_t y) {
  constexpr int64_t kColumns = 1024;  // that are copied at a time
  const EuclideanTransform& a = p.args;
  const int64_t plane = a.ny * a.nx, line = line_floats(a.nz), nz = round_up(a.nz, N);
  float* pixels = a.out + (batch * a.nz * a.ny + y) * a.nx;
  if (a.nx < N) return thin_depth(p, pixels);
  const int64_t row = line_floats(smaller(a.nx, kColumns));
  Scratch memory(nz * row + 2 * N * line + best_floats(a.nz));
  float *rows = memory.data(), *lines = rows + nz * row, *done = lines + N * line;
  int32_t* best = reinterpret_cast<int32_t*>(done + N * line);
  for (int64_t x0 = 0; x0 < a.nx; x0 += kColumns) {
    const int64_t columns = smaller(kColumns, a.nx - x0);
    for (int64_t z = 0; z < a.nz; ++z) std::memcpy(rows + z * row, pixels + z * plane + x0, columns * sizeof(float));
    for (int64_t x = 0; x < columns; x += N) {
      if (nz > 64) checkpoint();
      for (int64_t z = 0; z < nz; z += N) transpose_tile(rows + z * row + x, row, lines + z, line);
      for (int64_t k = 0; k < smaller(N, columns - x); ++k) {
        fill(lines + k * line + a.nz, line - a.nz, kInf);
        Envelope{lines + k * line, p.z_square, a.nz, best}.write(done + k * line, p.unit);
      }
      for (int64_t z = 0; z < nz; z += N) transpose_tile(done + z, line, rows + z * row + x, row);
    }
    for (int64_t z = 0; z < a.nz; ++z) std::memcpy(pixels + z * plane + x0, rows + z * row, columns * sizeof(float));
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
