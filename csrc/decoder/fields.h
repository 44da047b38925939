// What the operators of the decoder read alike: lists of weights, and the form in which an image is prepared.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "bind.h"
#include "decoder/low_rank.h"

namespace fastprompt {

// The arrays of a field, one after the other, each of the shape that it is asked for.
class Weights {
 public:
  Weights(Fields& f, const char* name) : f_(f), name_(name), all_(f.list(name)) {}

  // Size of an axis of array k, 0 where there is none: the next call of `next` that needs it complains.
  int64_t size(size_t k, int axis) const { return k < all_.size() ? all_[k].shape[axis] : 0; }
  int64_t rows() const { return size(at_, 0); }

  const float* next(std::initializer_list<int64_t> shape) {
    if (at_ == all_.size()) f_.fail(name_, "must hold more than " + std::to_string(at_) + " arrays");
    const Array& x = all_[at_];
    if (x.axes != static_cast<int>(shape.size()) || !std::equal(shape.begin(), shape.end(), x.shape)) {
      std::string wanted;
      for (const int64_t n : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(n);
      f_.fail(name_, "must have shape (" + wanted + ") at place " + std::to_string(at_) + ", got " + x.shape_text());
    }
    ++at_;
    return reinterpret_cast<const float*>(x.data);
  }
  Linear linear(int64_t rows, int64_t depth) {
    const float* weight = next({rows, depth});
    return {weight, next({rows})};
  }
  LayerNorm norm(int64_t channels, float eps) {
    const float* weight = next({channels});
    return {weight, next({channels}), eps};
  }
  // From `channels` to `inner` and back.
  AttentionWeights attention(int64_t inner, int64_t channels) {
    const Linear query = linear(inner, channels), key = linear(inner, channels), value = linear(inner, channels);
    return {query, key, value, linear(channels, inner)};
  }
  void done() const { f_.need(at_ == all_.size(), name_, ("must hold " + std::to_string(at_) + " arrays").c_str()); }

 private:
  Fields& f_;
  const char* name_;
  std::vector<Array> all_;
  size_t at_ = 0;
};

inline int64_t number_up_to(Fields& f, const char* name, int64_t most) {
  const auto n = f.number<int64_t>(name);
  f.need(n >= 1 && n <= most, name, ("must be from 1 to " + std::to_string(most)).c_str());
  return n;
}

// Whether `count` is the product; no, if that is too large.
inline bool is_product(int64_t count, std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (const int64_t n : factors)
    if (__builtin_mul_overflow(product, n, &product)) return false;
  return count == product;
}

inline int64_t padded(int64_t pixels) { return (pixels + kLargestTile - 1) / kLargestTile * kLargestTile; }

// Small enough that the sums of LowRankLayout do not overflow.
inline LowRankLayout layout_fields(Fields& f, int64_t tokens, int64_t up) {
  LowRankLayout l{};
  l.tokens = tokens, l.up = up;
  l.heads = number_up_to(f, "heads", 1 << 12), l.width = number_up_to(f, "head_width", 1 << 12);
  l.depth = number_up_to(f, "layers", 1 << 10), l.half = f.flag("half");
  f.need(up % 16 == 0 && up < 1 << 24, "weights", "must have a multiple of 4 channels between the convolutions");
  f.need(tokens <= 1 << 24, "tokens", "must be at most 2^24");
  return l;
}

// Kernels read and write whole cache lines of what is prepared.
inline void need_aligned(const Fields& f, const char* name, const void* data) {
  f.need(reinterpret_cast<std::uintptr_t>(data) % 64 == 0, name, "must start at a multiple of 64 bytes");
}

// What low_rank_prepare makes of the images.
inline void* prepared_field(Fields& f, const LowRankLayout& l, int64_t images, int64_t pixels) {
  const Array x = f.strided("prepared", "prepared");
  f.need(x.contiguous() && x.kind == (l.half ? Kind::bf16 : Kind::f32), "prepared",
         l.half ? "must hold bfloat16, contiguous" : "must hold float32, contiguous");
  f.need(is_product(x.count(), {images, padded(pixels), l.prepared_rows()}), "prepared", "must be of these images");
  need_aligned(f, "prepared", x.data);
  return x.data;
}

}  // namespace fastprompt
