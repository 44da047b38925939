#include "attention/prompt.h"

#include "attention/tile.h"
#include "common/interrupt.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

class Pass {
 public:
  Pass(const PromptPass& a, int64_t prompt)
      : a_(a),
        s_{a.heads, a.tokens, a.width, a.channels},
        prompt_(prompt),
        tokens_(a.lengths ? a.lengths[prompt] : a.tokens),
        image_(a.image + prompt / (a.prompts / a.images) * a.channels * a.pixels),
        memory_(kTile * (3 * a.channels + 2 * s_.inner() + s_.rows())) {
    x_ = memory_.data();
    sum_ = x_ + a.channels * kTile;
    turned_ = sum_ + a.channels * kTile;
    projected_ = turned_ + a.channels * kTile;
    values_ = projected_ + s_.inner() * kTile;
    logits_ = values_ + s_.inner() * kTile;
  }

  void run(int64_t first, int64_t last, Partial sums) {
    for (int64_t tile = first; tile < last; ++tile) {
      checkpoint();
      start_ = tile * kTile;
      count_ = a_.pixels - start_ < kTile ? a_.pixels - start_ : kTile;
      load_tile();
      if (a_.to_prompt.form != Form::none) image_to_prompt(), add_position();
      if (a_.image_out) store_tile();
      if (a_.to_image.form != Form::none) prompt_to_image(sums, tile == first);
    }
  }

 private:
  // x_ = image, sum_ = image + position; zeros behind the last token.
  void load_tile() {
    for (int64_t c = 0; c < a_.channels; ++c) {
      const float* from = image_ + c * a_.pixels + start_;
      float* to = x_ + c * kTile;
      for (int64_t n = 0; n < count_; ++n) to[n] = from[n];
      for (int64_t n = count_; n < kTile; ++n) to[n] = 0;
    }
    add_position();
  }

  void add_position() {
    for (int64_t c = 0; c < a_.channels; ++c) {
      const float *from = x_ + c * kTile, *position = a_.position + c * a_.pixels + start_;
      float* to = sum_ + c * kTile;
      for (int64_t n = 0; n < kTile; ++n) to[n] = a_.position && n < count_ ? from[n] + position[n] : from[n];
    }
  }

  void store_tile() {
    for (int64_t c = 0; c < a_.channels; ++c) {
      float* to = a_.image_out + (prompt_ * a_.channels + c) * a_.pixels + start_;
      for (int64_t n = 0; n < count_; ++n) to[n] = x_[c * kTile + n];
    }
  }

  Side side_of(Form form, const float* all) const {
    return side(s_, form, all + prompt_ * s_.rows() * (form == Form::absorbed ? s_.channels : s_.width));
  }

  void image_to_prompt() {
    const ImageToPrompt& p = a_.to_prompt;
    if (p.form == Form::projected) project(p.query_weight, s_.inner(), s_.channels, sum_, projected_);
    dot(s_, side_of(p.form, p.key), p.form == Form::absorbed ? sum_ : projected_, logits_);
    softmax_over_prompt(s_, tokens_, p.key_bias + prompt_ * s_.rows(), logits_);
    for (int64_t n = 0; !p.residual && n < s_.channels * kTile; ++n) x_[n] = 0;
    add_from_prompt(s_, side_of(p.form, p.value), p.out_weight, logits_, x_, projected_);
    add_bias_and_normalise(s_.channels, kTile, p.out_bias, {p.norm_weight, p.norm_bias, p.eps}, x_, x_);
  }

  void prompt_to_image(Partial& sums, bool first) {
    const PromptToImage& p = a_.to_image;
    const bool absorbed = p.form == Form::absorbed;
    if (!absorbed) project(p.key_weight, s_.inner(), s_.channels, sum_, projected_);
    dot(s_, side_of(p.form, p.query), absorbed ? sum_ : projected_, logits_);
    const float* bias = p.bias ? p.bias + prompt_ * s_.tokens * a_.pixels + start_ : nullptr;
    weigh(s_, count_, bias, a_.pixels, absorbed ? s_.channels : s_.width, first, logits_, sums);
    if (absorbed)
      turn_tile(s_.channels, x_, turned_, s_.channels);
    else
      gemm<false>({x_, 1, kTile}, p.value_weight, s_.inner(), values_, s_.inner(), kTile, s_.inner() / N, s_.channels);
    gather_heads(s_, p.form, logits_, absorbed ? turned_ : values_, first, sums);
  }

  const PromptPass& a_;
  const Heads s_;
  const int64_t prompt_, tokens_;
  const float* image_;
  Scratch memory_;
  float *x_, *sum_, *turned_, *projected_, *values_, *logits_;
  int64_t start_ = 0, count_ = 0;
};

}  // namespace

int64_t prompt_tile() { return kTile; }

void prompt_tiles(const PromptPass& a, int64_t prompt, int64_t first, int64_t last, Partial sums) {
  Pass(a, prompt).run(first, last, sums);
}

void prompt_merge(const PromptPass& a, int64_t prompt, const Partial* parts, int count) {
  const int64_t rows = a.heads * a.tokens, size = a.to_image.form == Form::absorbed ? a.channels : a.width;
  for (int64_t j = 0; j < rows; ++j) {
    float* out = a.to_image.out + (prompt * rows + j) * size;
    merge_row(parts, count, j, size, out);
    for (int64_t c = 0; a.lengths && j % a.tokens >= a.lengths[prompt] && c < size; ++c) out[c] = 0;
  }
}

}  // namespace FP_ISA
}  // namespace fastprompt
