#include "masks/resize.h"

#include <cstring>

#include "common/math.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

// Eight bits as eight bytes of 0 or 1.
struct ByteTable {
  uint64_t bytes[256];
  constexpr ByteTable() : bytes() {
    for (int n = 0; n < 256; ++n)
      for (int k = 0; k < 8; ++k) bytes[n] |= uint64_t(n >> k & 1) << 8 * k;
  }
};
constexpr ByteTable kBytes;

// Columns first: a row of the input becomes a row of the output's width, once; then every output row is a sum of two to
// four of them, in whole vectors.
class Band {
 public:
  Band(const ResizeMasks& a, int64_t mask, int64_t first, int64_t last, MaskFacts* facts)
      : a_(a),
        mask_(mask),
        first_(first),
        last_(last),
        facts_(*facts),
        vectors_((a.columns.size + N - 1) / N),
        words_((a.columns.size + 63) / 64),
        low_(a.height),
        high_(0),
        memory_(0) {}

  void run() {
    for (int64_t y = first_; y < last_; ++y)
      for (int64_t k = 0; k < a_.rows.count; ++k) {
        const int64_t row = a_.rows.index[k * a_.rows.size + y];
        low_ = row < low_ ? row : low_, high_ = row > high_ ? row : high_;
      }
    Scratch memory((high_ - low_ + 2) * vectors_ * N + 2 * words_);
    memory_ = memory.data();
    for (int64_t row = low_; row <= high_; ++row) widen(row);
    out_ = memory_ + (high_ - low_ + 1) * vectors_ * N;
    bits_ = reinterpret_cast<uint64_t*>(out_ + vectors_ * N);
    facts_ = {};
    for (int64_t y = first_; y < last_; ++y) a_.facts ? output(y) : logits(y);
  }

 private:
  float* widened(int64_t row) const { return memory_ + (row - low_) * vectors_ * N; }

  void widen(int64_t row) const {
    const Resizing& t = a_.columns;
    const float* from = a_.logits + (mask_ * a_.height + row) * a_.width;
    float* to = widened(row);
    for (int64_t x = 0; x < t.size; ++x) {
      float sum = t.weight[x] * from[t.index[x]];
      for (int64_t k = 1; k < t.count; ++k) sum += t.weight[k * t.size + x] * from[t.index[k * t.size + x]];
      to[x] = sum;
    }
    for (int64_t x = t.size; x < vectors_ * N; ++x) to[x] = -__builtin_inff();  // over no threshold
  }

  void logits(int64_t y) const {
    const int64_t width = a_.columns.size, whole = width / N * N;
    float* to = static_cast<float*>(a_.out) + (mask_ * a_.rows.size + y) * width;
    for (int64_t x = 0; x < whole; x += N) storeu(to + x, sum(y, x));
    if (whole == width) return;
    store(out_, sum(y, whole));
    std::memcpy(to + whole, out_, (width - whole) * sizeof(float));
  }

  // Output row y from column x on.
  vf sum(int64_t y, int64_t x) const {
    const Resizing& t = a_.rows;
    vf sum = broadcast(t.weight[y]) * load(widened(t.index[y]) + x);
    for (int64_t k = 1; k < t.count; ++k) {
      const float weight = t.weight[k * t.size + y];
      if (weight != 0.f) sum = fma(broadcast(weight), load(widened(t.index[k * t.size + y]) + x), sum);
    }
    return sum;
  }

  void output(int64_t y) {
    const vf threshold = broadcast(a_.threshold), above = broadcast(a_.threshold + a_.offset);
    const vf below = broadcast(a_.threshold - a_.offset);
    for (int64_t w = 0; w < words_; ++w) bits_[w] = 0;
    for (int64_t v = 0; v < vectors_; ++v) {
      const vf logits = sum(y, v * N);
      store(out_ + v * N, logits);
      const uint64_t inside = less_mask(threshold, logits);
      bits_[v * N / 64] |= inside << v * N % 64;
      facts_.above += __builtin_popcountll(less_mask(above, logits));
      facts_.below += __builtin_popcountll(less_mask(below, logits));
    }
    note(y);
    write(y);
  }

  void note(int64_t y) {
    int64_t area = 0, x0 = -1, x1 = 0;
    for (int64_t w = 0; w < words_; ++w) {
      if (bits_[w] == 0) continue;
      area += __builtin_popcountll(bits_[w]);
      if (x0 < 0) x0 = 64 * w + __builtin_ctzll(bits_[w]);
      x1 = 64 * w + 63 - __builtin_clzll(bits_[w]);
    }
    if (area == 0) return;
    if (facts_.area == 0) facts_.x0 = x0, facts_.y0 = y;
    facts_.area += area;
    facts_.x0 = x0 < facts_.x0 ? x0 : facts_.x0;
    facts_.x1 = x1 > facts_.x1 ? x1 : facts_.x1;
    facts_.y1 = y;
  }

  void write(int64_t y) const {
    const int64_t width = a_.columns.size, row = mask_ * a_.rows.size + y;
    if (a_.kind == MaskKind::logits) {
      std::memcpy(static_cast<float*>(a_.out) + row * width, out_, width * sizeof(float));
    } else if (a_.kind == MaskKind::bits) {
      const int64_t bytes = (width + 7) / 8;
      std::memcpy(static_cast<uint8_t*>(a_.out) + row * bytes, bits_,
                  bytes);  // NOTE: the first bits are the first bytes
    } else {
      uint8_t* to = static_cast<uint8_t*>(a_.out) + row * width;
      const uint8_t* bits = reinterpret_cast<const uint8_t*>(bits_);
      for (int64_t k = 0; k < width / 8; ++k) std::memcpy(to + 8 * k, &kBytes.bytes[bits[k]], 8);
      if (width % 8) std::memcpy(to + width / 8 * 8, &kBytes.bytes[bits[width / 8]], width % 8);
    }
  }

  const ResizeMasks& a_;
  const int64_t mask_, first_, last_;
  MaskFacts& facts_;
  const int64_t vectors_, words_;
  int64_t low_, high_;  // rows of the input
  float *memory_, *out_ = nullptr;
  uint64_t* bits_ = nullptr;
};

}  // namespace

void resize_band(const ResizeMasks& a, int64_t mask, int64_t first, int64_t last, MaskFacts* facts) {
  Band(a, mask, first, last, facts).run();
}

}  // namespace FP_ISA
}  // namespace fastprompt
