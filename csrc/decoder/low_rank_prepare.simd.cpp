#include "common/scratch.h"
#include "decoder/low_rank_tile.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

// One tile of an image: A_0 = centred image, A_n = A_(n-1) times the weight of a LayerNorm, and all that is asked of
// it.
class Preparation {
 public:
  Preparation(const LowRankImage& a, int64_t image, int64_t tile)
      : a_(a),
        start_(tile * kTile),
        count_(a.pixels - start_ < kTile ? a.pixels - start_ : kTile),
        channels_(a.channels),
        inner_(a.layout.inner()),
        place_((image * ((a.pixels + kTile - 1) / kTile) + tile) * a.layout.prepared_rows() * kTile),
        memory_((4 * channels_ + inner_ + a.layout.prepared_rows()) * kTile + a.layout.depth * channels_) {
    out_ = a.layout.half ? memory_.data() : static_cast<float*>(a.out) + place_;
    x_ = memory_.data() + a.layout.prepared_rows() * kTile;
    float** rows[] = {&position_, &sum_, &copy_, &room_};
    float* at = x_;
    for (float** r : rows) *r = at += channels_ * kTile;
    constants_ = room_ + inner_ * kTile;
    read(a.image + image * channels_ * a.pixels, x_);
    read(a.position, position_);
  }

  void run() {
    const int64_t depth = a_.layout.depth;
    ask_first_layer();
    add_bias(x_, a_.layers[0].to_prompt.out.bias);
    for (int64_t n = 1; n <= depth; ++n) {
      centre(x_, channels_);
      const LowRankTile<float> t = of_pass(n);
      products_with_constants(n, t);
      for (int64_t s = n; s >= 1; --s) product_with_said(n, s, t.said + (s - 1) * inner_ * kTile);
      scale(x_, a_.layers[n - 1].norm4.weight);
      ask(n, t);
    }
    gemm<false>({a_.up_weight, 1, a_.layout.up}, x_, kTile, out_ + a_.layout.start(depth + 1) * kTile, kTile,
                a_.layout.up, V, channels_);
    if (a_.layout.half) compress(out_, static_cast<uint16_t*>(a_.out) + place_, a_.layout.prepared_rows() * kTile);
  }

 private:
  LowRankTile<float> of_pass(int64_t n) const { return {a_.layout, out_ + a_.layout.start(n) * kTile, n}; }

  void read(const float* from, float* to) const {
    for (int64_t c = 0; c < channels_; ++c)
      for (int64_t n = 0; n < kTile; ++n) to[c * kTile + n] = n < count_ ? from[c * a_.pixels + start_ + n] : 0;
  }

  void add_bias(float* rows, const float* bias, int64_t count) const {
    for (int64_t c = 0; bias && c < count; ++c)
      for (int64_t n = 0; n < kTile; n += N)
        store(rows + c * kTile + n, load(rows + c * kTile + n) + broadcast(bias[c]));
  }
  void add_bias(float* rows, const float* bias) const { add_bias(rows, bias, channels_); }

  void scale(float* rows, const float* weight) const {
    for (int64_t c = 0; c < channels_; ++c)
      for (int64_t n = 0; n < kTile; n += N)
        store(rows + c * kTile + n, load(rows + c * kTile + n) * broadcast(weight[c]));
  }

  void copy(const float* from, float* to) const {
    for (int64_t k = 0; k < channels_ * kTile; k += N) store(to + k, load(from + k));
  }

  // The tokens themselves, not yet centred.
  void ask_first_layer() {
    const LowRankTile<float> t = of_pass(0), next = of_pass(1);
    for (int64_t k = 0; k < channels_ * kTile; k += N) store(sum_ + k, load(x_ + k) + load(position_ + k));
    const TwoWayLayer& l = a_.layers[0];
    project(l.to_image.key.weight, inner_, channels_, sum_, t.key);
    value(l.to_image, t.value);
    project(l.to_prompt.query.weight, inner_, channels_, sum_, next.query);
    add_bias(next.query, l.to_prompt.query.bias, inner_);
  }

  void value(const AttentionWeights& w, float* to) {
    project(w.value.weight, inner_, channels_, x_, room_);
    turn_tile(inner_, room_, to, inner_);
  }

  // What is asked of A_n: by the prompt after pass n, and by the image itself in pass n + 1. Positions carry the bias
  // of the LayerNorm.
  void ask(int64_t n, const LowRankTile<float>& t) {
    const AttentionWeights& w = question_after(a_.layers, a_.final, a_.layout.depth, n);
    copy(position_, sum_);
    add_bias(sum_, a_.layers[n - 1].norm4.bias);
    project(w.key.weight, inner_, channels_, x_, t.key);
    project(w.key.weight, inner_, channels_, sum_, t.key_position);
    value(w, t.value);
    if (n == a_.layout.depth) return;
    const LowRankTile<float> next = of_pass(n + 1);
    const Linear& query = a_.layers[n].to_prompt.query;
    project(query.weight, inner_, channels_, x_, next.query);
    project(query.weight, inner_, channels_, sum_, next.query_position);
    add_bias(next.query_position, query.bias, inner_);
  }

  // |A|^2, and A times the constants that the LayerNorms before have left.
  void products_with_constants(int64_t n, const LowRankTile<float>& t) {
    for (int64_t k = 0; k + 2 < n; ++k) pass_norm(constants_ + k * channels_, a_.layers[n - 2].norm4.weight, channels_);
    if (n > 1) new_constant(a_.layers, n, channels_, constants_ + (n - 2) * channels_);
    gemm<false>({constants_, channels_, 1}, x_, kTile, t.constants, kTile, n - 1, V, channels_);
    for (int64_t p = 0; p < kTile; p += N) {
      vf total = broadcast(0.f);
      for (int64_t c = 0; c < channels_; ++c) total = fma(load(x_ + c * kTile + p), load(x_ + c * kTile + p), total);
      store(t.square + p, total);
    }
  }

  // A_(n-1) times what pass s says, after the LayerNorms s to n - 1, up to the heads' values.
  void product_with_said(int64_t n, int64_t s, float* to) {
    if (s == n) copy(x_, copy_);
    if (s < n) {
      scale(copy_, a_.layers[s - 1].norm4.weight);
      centre(copy_, channels_);
    }
    gemm<false>({a_.layers[s - 1].to_prompt.out.weight, 1, inner_}, copy_, kTile, to, kTile, inner_, V, channels_);
  }

  const LowRankImage& a_;
  const int64_t start_, count_, channels_, inner_;
  const int64_t place_;  // of the tile among those that are kept
  Scratch memory_;
  float *out_, *x_, *position_, *sum_, *copy_, *room_, *constants_;
};

}  // namespace

void low_rank_prepare_tile(const LowRankImage& a, int64_t image, int64_t tile) { Preparation(a, image, tile).run(); }

}  // namespace FP_ISA
}  // namespace fastprompt
