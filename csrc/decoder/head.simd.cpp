#include "decoder/head.h"

#include "common/scratch.h"
#include "decoder/low_rank_tile.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

// A tile of image tokens, one after the other. Rows are channels; those of a convolution are in the order of its
// weights, output channel by output channel with its four sub-pixels, so that one sub-pixel is every fourth row.
class Head {
 public:
  Head(const MaskHead& a, int64_t prompt, int64_t tile)
      : a_(a),
        prompt_(prompt),
        tile_(tile),
        image_(prompt / (a.prompts / a.images)),
        start_(tile * kTile),
        count_(a.height * a.width - start_ < kTile ? a.height * a.width - start_ : kTile),
        packed_depth_(
            round_to_depth(a.middle > a.layout.rank(a.layout.depth) ? a.middle : a.layout.rank(a.layout.depth))),
        memory_(kTile * (a.channels + 4 * a.middle + a.middle + 4 * a.depth + a.masks * 16 + packed_depth_)),
        up1_(memory_.data()),
        middle_(up1_ + 4 * a.middle * kTile),
        up2_(middle_ + a.middle * kTile),
        pixels_(up2_ + 4 * a.depth * kTile),
        x_(pixels_ + a.masks * 16 * kTile),
        right_(reinterpret_cast<uint16_t*>(x_ + a.channels * kTile)) {}

  void run() {
    a_.image ? convolve() : convolve_low_rank();
    for (int s = 0; s < 4; ++s) quarter(s);
    write();
  }

 private:
  void convolve() {
    const int64_t pixels = a_.height * a_.width;
    for (int64_t c = 0; c < a_.channels; ++c) {
      const float* from = a_.image + (prompt_ * a_.channels + c) * pixels + start_;
      for (int64_t n = 0; n < kTile; n += 16) __builtin_prefetch(from + kTile + n);
      for (int64_t n = 0; n < count_; ++n) x_[c * kTile + n] = from[n];
      for (int64_t n = count_; n < kTile; ++n) x_[c * kTile + n] = 0;
    }
    gemm<false>({a_.weight1, 1, 4 * a_.middle}, x_, kTile, up1_, kTile, 4 * a_.middle, V, a_.channels);
  }

  // W_up (d A + W R + bias): all products but those with the weights are prepared.
  void convolve_low_rank() {
    const LowRankLayout& l = a_.layout;
    const int64_t tiles = (a_.height * a_.width + kTile - 1) / kTile, up = 4 * a_.middle;
    const int64_t place = ((image_ * tiles + tile_) * l.prepared_rows() + l.start(l.depth + 1)) * kTile;
    const float* content = static_cast<const float*>(a_.prepared) + place;
    if (l.half) {
      expand(static_cast<const uint16_t*>(a_.prepared) + place, up1_, up * kTile);
      content = up1_;
    }
    const float *bias = a_.low_rank + prompt_ * l.prompt_rows() * (up + tiles * kTile), *rows = bias + up;
    const float *d = bias + l.prompt_rows() * (up + tile_ * kTile), *weights = d + kTile;
    for (int64_t c = 0; c < up; ++c)
      for (int64_t n = 0; n < kTile; n += N)
        store(up1_ + c * kTile + n, fma(load(d + n), load(content + c * kTile + n), broadcast(bias[c])));
    if (!a_.engine) return gemm<true>({rows, 1, up}, weights, kTile, up1_, kTile, up, V, l.rank(l.depth));
    const int64_t first = prompt_ * up * round_to_depth(l.rank(l.depth));
    const Bf16Operand left{a_.low_rank_rows.high + first,
                           a_.low_rank_rows.low ? a_.low_rank_rows.low + first : nullptr};
    multiply_packed(left, weights, l.rank(l.depth), up1_, up, true);
  }

  // out (rows x tile) (+)= left (rows x depth) from (depth x tile), in bfloat16.
  void multiply_packed(const Bf16Operand& left, const float* from, int64_t depth, float* out, int64_t rows, bool add) {
    const int64_t padded = round_to_depth(depth);
    const Bf16Operand right{right_, left.low ? right_ + padded * kTile : nullptr};
    a_.engine->pack_right(from, kTile, depth, padded, right_, left.low ? right_ + padded * kTile : nullptr);
    multiply(*a_.engine, left, in_rows(padded), right, out, kTile, rows, padded, add);
  }

  // Sub-pixel s = 2 sy + sx of the first convolution becomes 4 pixels of every mask.
  void quarter(int s) {
    if (a_.detail1) add_detail(up1_ + s * kTile, a_.detail1, a_.middle, 2, s / 2, s % 2);
    normalise(up1_ + s * kTile);
    if (a_.engine)
      multiply_packed(a_.packed2, middle_, a_.middle, up2_, 4 * a_.depth, false);
    else
      gemm<false>({a_.weight2, 1, 4 * a_.depth}, middle_, kTile, up2_, kTile, 4 * a_.depth, V, a_.middle);
    for (int s2 = 0; s2 < 4; ++s2) {
      const int sy = 2 * (s / 2) + s2 / 2, sx = 2 * (s % 2) + s2 % 2;
      if (a_.detail2) add_detail(up2_ + s2 * kTile, a_.detail2, a_.depth, 4, sy, sx);
      dot(up2_ + s2 * kTile, pixels_ + (sy * 4 + sx) * kTile);
    }
  }

  // body(first token, its x and y, how many) for each run of tokens in one row of the image.
  template <class Body>
  void runs(Body body) const {
    for (int64_t n = 0; n < count_;) {
      const int64_t y = (start_ + n) / a_.width, x = (start_ + n) % a_.width;
      const int64_t count = a_.width - x < count_ - n ? a_.width - x : count_ - n;
      body(n, x, y, count);
      n += count;
    }
  }

  // The features of a finer scale, those at sub-pixel (sy, sx) of each token.
  void add_detail(float* rows, const float* detail, int64_t channels, int64_t scale, int64_t sy, int64_t sx) const {
    const int64_t width = scale * a_.width;
    runs([&](int64_t first, int64_t x, int64_t y, int64_t count) {
      for (int64_t c = 0; c < channels; ++c) {
        const float* from =
            detail + ((image_ * channels + c) * scale * a_.height + scale * y + sy) * width + scale * x + sx;
        for (int64_t n = 0; n < count; ++n) rows[4 * c * kTile + first + n] += from[scale * n];
      }
    });
  }

  // middle_ = bias, LayerNorm over the channels and GELU of every fourth row.
  void normalise(float* rows) const {
    const vf share = broadcast(1.f / a_.middle);
    for (int64_t n = 0; n < kTile; n += N) {
      vf total = broadcast(0.f), squares = total;
      for (int64_t c = 0; c < a_.middle; ++c) {
        const vf x = load(rows + 4 * c * kTile + n) + broadcast(a_.bias1[c]);
        store(middle_ + c * kTile + n, x);
        total = total + x;
      }
      const vf mean = total * share;
      for (int64_t c = 0; c < a_.middle; ++c) {
        const vf x = load(middle_ + c * kTile + n) - mean;
        squares = fma(x, x, squares);
      }
      const vf scale = broadcast(1.f) / sqrt(fma(squares, share, broadcast(a_.eps)));
      for (int64_t c = 0; c < a_.middle; ++c) {
        const vf x = (load(middle_ + c * kTile + n) - mean) * scale;
        store(middle_ + c * kTile + n, gelu(fma(x, broadcast(a_.norm_weight[c]), broadcast(a_.norm_bias[c]))));
      }
    }
  }

  // Bias, GELU, and the masks' vectors: one pixel of each token, for every mask.
  void dot(float* rows, float* pixels) const {
    for (int64_t c = 0; c < a_.depth; ++c)
      for (int64_t n = 0; n < kTile; n += N)
        store(rows + 4 * c * kTile + n, gelu(load(rows + 4 * c * kTile + n) + broadcast(a_.bias2[c])));
    const float* vectors = a_.vectors + prompt_ * a_.masks * a_.depth;
    gemm<false>({vectors, a_.depth, 1}, rows, 4 * kTile, pixels, 16 * kTile, a_.masks, V, a_.depth);
  }

  void write() const {
    runs([&](int64_t first, int64_t x, int64_t y, int64_t count) {
      for (int64_t m = 0; m < a_.masks; ++m)
        for (int64_t sy = 0; sy < 4; ++sy) {
          const float* from = pixels_ + (m * 16 + sy * 4) * kTile + first;
          float* to = a_.out + (((prompt_ * a_.masks + m) * a_.height + y) * 4 + sy) * a_.width * 4 + x * 4;
          for (int64_t n = 0; n < count; ++n)
            for (int64_t sx = 0; sx < 4; ++sx) to[4 * n + sx] = from[sx * kTile + n];
        }
    });
  }

  const MaskHead& a_;
  const int64_t prompt_, tile_, image_, start_, count_;
  const int64_t packed_depth_;  // of the longest operand in bfloat16, of which there may be two
  Scratch memory_;
  float *up1_, *middle_, *up2_, *pixels_, *x_;
  uint16_t* right_;
};

}  // namespace

void mask_head_tile(const MaskHead& a, int64_t prompt, int64_t tile) { Head(a, prompt, tile).run(); }

}  // namespace FP_ISA
}  // namespace fastprompt
