#include "masks/head.h"

#include "common/gemm.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int V = 4;
constexpr int64_t kTile = V * N;  // image tokens of a tile, side by side in a row of the image

// Rows of a tile are channels, as in attention/prompt.simd.cpp.
class Head {
 public:
  Head(const MaskHead& a, int64_t prompt, int64_t y)
      : a_(a),
        prompt_(prompt),
        y_(y),
        memory_(kTile * (a.channels + 4 * a.middle + 4 * a.depth + a.masks * 16)),
        x_(memory_.data()),
        up1_(x_ + a.channels * kTile),
        up2_(up1_ + 4 * a.middle * kTile),
        pixels_(up2_ + 4 * a.depth * kTile) {}

  void run() {
    for (x0_ = 0; x0_ < a_.width; x0_ += kTile) {
      count_ = a_.width - x0_ < kTile ? a_.width - x0_ : kTile;
      load_tile();
      gemm<false>({a_.weight1, a_.channels, 1}, x_, kTile, up1_, kTile, 4 * a_.middle, V, a_.channels);
      for (int s = 0; s < 4; ++s) quarter(s);
      write();
    }
  }

 private:
  void load_tile() {
    for (int64_t c = 0; c < a_.channels; ++c) {
      const float* from = a_.image + ((prompt_ * a_.channels + c) * a_.height + y_) * a_.width + x0_;
      for (int64_t n = 0; n < kTile; n += 16) __builtin_prefetch(from + a_.width + n);  // the next row of the image
      for (int64_t n = 0; n < count_; ++n) x_[c * kTile + n] = from[n];
      for (int64_t n = count_; n < kTile; ++n) x_[c * kTile + n] = 0;
    }
  }

  // A quarter of the first up-scaling, sub-pixel s = 2 sy + sx of every token, becomes 4 pixels of every mask.
  void quarter(int s) {
    float* middle = up1_ + s * a_.middle * kTile;
    if (a_.detail1) add_detail(middle, a_.detail1, a_.middle, 2, s / 2, s % 2);
    normalise(middle);
    gemm<false>({a_.weight2, a_.middle, 1}, middle, kTile, up2_, kTile, 4 * a_.depth, V, a_.middle);
    for (int s2 = 0; s2 < 4; ++s2) {
      float* deep = up2_ + s2 * a_.depth * kTile;
      const int sy = 2 * (s / 2) + s2 / 2, sx = 2 * (s % 2) + s2 % 2;
      if (a_.detail2) add_detail(deep, a_.detail2, a_.depth, 4, sy, sx);
      dot(deep, pixels_ + (sy * 4 + sx) * kTile);
    }
  }

  // The features of a finer scale, those at sub-pixel (sy, sx) of each token.
  void add_detail(float* rows, const float* detail, int64_t channels, int64_t scale, int64_t sy, int64_t sx) const {
    const int64_t width = scale * a_.width, image = prompt_ / (a_.prompts / a_.images);
    for (int64_t c = 0; c < channels; ++c) {
      const float* from =
          detail + ((image * channels + c) * scale * a_.height + scale * y_ + sy) * width + scale * x0_ + sx;
      for (int64_t n = 0; n < count_; ++n) rows[c * kTile + n] += from[scale * n];
    }
  }

  // Bias, LayerNorm over the channels, GELU.
  void normalise(float* rows) const {
    const vf share = broadcast(1.f / a_.middle);
    for (int64_t n = 0; n < kTile; n += N) {
      vf total = broadcast(0.f), squares = total;
      for (int64_t c = 0; c < a_.middle; ++c) {
        const vf x = load(rows + c * kTile + n) + broadcast(a_.bias1[c]);
        store(rows + c * kTile + n, x);
        total = total + x;
      }
      const vf mean = total * share;
      for (int64_t c = 0; c < a_.middle; ++c) {
        const vf x = load(rows + c * kTile + n) - mean;
        squares = fma(x, x, squares);
      }
      const vf scale = broadcast(1.f) / sqrt(fma(squares, share, broadcast(a_.eps)));
      for (int64_t c = 0; c < a_.middle; ++c) {
        const vf x = (load(rows + c * kTile + n) - mean) * scale;
        store(rows + c * kTile + n, gelu(fma(x, broadcast(a_.norm_weight[c]), broadcast(a_.norm_bias[c]))));
      }
    }
  }

  // Bias, GELU, and the masks' vectors: one pixel of each token, for every mask.
  void dot(float* rows, float* pixels) const {
    for (int64_t c = 0; c < a_.depth; ++c)
      for (int64_t n = 0; n < kTile; n += N)
        store(rows + c * kTile + n, gelu(load(rows + c * kTile + n) + broadcast(a_.bias2[c])));
    const float* vectors = a_.vectors + prompt_ * a_.masks * a_.depth;
    gemm<false>({vectors, a_.depth, 1}, rows, kTile, pixels, 16 * kTile, a_.masks, V, a_.depth);
  }

  void write() const {
    for (int64_t m = 0; m < a_.masks; ++m)
      for (int64_t sy = 0; sy < 4; ++sy) {
        const float* from = pixels_ + (m * 16 + sy * 4) * kTile;
        float* to = a_.out + (((prompt_ * a_.masks + m) * a_.height + y_) * 4 + sy) * a_.width * 4 + x0_ * 4;
        for (int64_t n = 0; n < count_; ++n)
          for (int64_t sx = 0; sx < 4; ++sx) to[4 * n + sx] = from[sx * kTile + n];
      }
  }

  const MaskHead& a_;
  const int64_t prompt_, y_;
  Scratch memory_;
  float *x_, *up1_, *up2_, *pixels_;
  int64_t x0_ = 0, count_ = 0;
};

}  // namespace

void mask_head_row(const MaskHead& a, int64_t prompt, int64_t y) { Head(a, prompt, y).run(); }

}  // namespace FP_ISA
}  // namespace fastprompt
