#include "decoder/two_way.h"

#include "decoder/prompt_tokens.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

static_assert(kTile <= kLargestTile);
constexpr int64_t kParts = 12;  // of the image, for each thread: 0.2 ms for SAM, see Member::stage

// A tile of a prepared image.
struct Prepared {
  const float *x, *position, *key, *query;  // rows x tile
  const float* value;                       // tile x inner
};

Prepared prepared_tile(const float* tile, int64_t channels, int64_t inner) {
  const float *position = tile + channels * kTile, *key = position + channels * kTile;
  return {tile, position, key, key + inner * kTile, key + 2 * inner * kTile};
}

// All of one prompt.
class Decoder {
 public:
  Decoder(const TwoWay& a, int64_t prompt, int threads)
      : a_(a),
        s_{a.heads, a.tokens, a.width, a.channels},
        prompt_(prompt),
        image_(prompt / (a.prompts / a.images)),
        tiles_((a.pixels + kTile - 1) / kTile),
        parts_(parts_of(tiles_, threads, kParts)),
        form_(s_.rows() * s_.channels < s_.inner() * (s_.channels + s_.tokens) ? Form::absorbed : Form::projected),
        prompt_tokens_(a, prompt, 1),
        memory_((4 + parts_) * (s_.rows() * s_.channels + 2 * s_.rows() + 64) + tiles_ * s_.channels * kTile) {
    Pieces pieces{memory_.data()};
    float** rows[] = {&to_image_, &to_prompt_key_, &to_prompt_value_};
    for (float** m : rows) *m = pieces.take(s_.rows() * s_.channels);
    key_bias_ = pieces.take(s_.rows());
    for (int64_t k = 0; k < parts_; ++k) {
      float* peak = pieces.take(s_.rows());
      float* weight = pieces.take(s_.rows());
      partials_[k] = {peak, weight, pieces.take(s_.rows() * s_.channels)};
    }
    tokens_ = pieces.take(tiles_ * s_.channels * kTile);
  }

  static void program(Member& m, void* self) { static_cast<Decoder*>(self)->run(m); }

 private:
  static constexpr int64_t kMaxParts = 64 * kParts;

  // Every thread of the team runs this; the stages keep them together.
  void run(Member& m) {
    PromptTokens& p = prompt_tokens_;
    p.read(m);
    for (int64_t n = 0; n <= a_.depth; ++n) {
      if (n > 0) after_image(m, a_.layers[n - 1]);
      const AttentionWeights& next = n < a_.depth ? a_.layers[n].to_image : a_.final;
      if (n < a_.depth) p.attend_to_itself(m, a_.layers[n], n == 0);
      p.ask(m, next);
      if (n > 0 && form_ == Form::absorbed)
        each(m, a_.heads, [&](int64_t h) { p.absorb(h, p.query, next.key.weight, to_image_); });
      each(m, parts_, [&](int64_t part) { pass(n, part); }, true);
    }
    add_answer(m, a_.final, a_.final_norm, false);
    p.write(m);
  }

  // ---------------------------------------------------------------- between prompt and image

  // After a pass: the answer of the image, the MLP, and the prompt side of the image's question.
  void after_image(Member& m, const TwoWayLayer& l) {
    const bool first = &l == a_.layers;
    add_answer(m, l.to_image, l.norm2, first);
    prompt_tokens_.digest(m, l);
    each(m, a_.heads, [&](int64_t h) { answer_image(h, l.to_prompt, first); });
  }

  void answer_image(int64_t h, const AttentionWeights& w, bool first) {
    const PromptTokens& p = prompt_tokens_;
    for (int64_t t = 0; t < a_.tokens; ++t) {
      float bias = 0;  // the query's bias; a prepared query has it
      for (int64_t i = h * a_.width; !first && w.query.bias && i < (h + 1) * a_.width; ++i)
        bias += p.image_key[t * s_.inner() + i] * w.query.bias[i];
      key_bias_[h * a_.tokens + t] = bias;
    }
    if (form_ == Form::projected) return;
    if (!first) p.absorb(h, p.image_key, w.query.weight, to_prompt_key_);
    p.absorb_out(h, p.image_value, w.out.weight, to_prompt_value_);
  }

  // What the prompt gathered in the last pass: value bias and output projection, residual, norm.
  void add_answer(Member& m, const AttentionWeights& w, const LayerNorm& norm, bool prepared) {
    each(m, a_.heads, [&](int64_t h) { merge_head(h, w, prepared || form_ == Form::projected); });
    prompt_tokens_.take_answer(m, w, norm);
  }

  // key = the head's answer.
  void merge_head(int64_t h, const AttentionWeights& w, bool projected) {
    const int64_t size = projected ? a_.width : a_.channels;
    Scratch memory(a_.tokens * size);
    float *merged = memory.data(), *out = prompt_tokens_.key + h * a_.width;
    for (int64_t t = 0; t < a_.tokens; ++t) {
      float* row = projected ? out + t * s_.inner() : merged + t * size;
      merge_row(partials_, static_cast<int>(parts_), h * a_.tokens + t, size, row);
    }
    if (!projected)
      linear(w.value.weight + h * a_.width * size, merged, size, out, s_.inner(), a_.width, a_.tokens, size);
    for (int64_t t = 0; t < a_.tokens && w.value.bias; ++t)
      for (int64_t i = 0; i < a_.width; ++i) out[t * s_.inner() + i] += w.value.bias[h * a_.width + i];
  }

  // ---------------------------------------------------------------- on image tokens

  struct Room {
    float *sum, *turned, *projected, *values, *logits;
  };

  void pass(int64_t n, int64_t part) {
    const int64_t tile = s_.channels * kTile, inner = s_.inner() * kTile;
    Scratch memory(2 * tile + 2 * inner + s_.rows() * kTile);
    float* at = memory.data();
    const Room r{at, at + tile, at + 2 * tile, at + 2 * tile + inner, at + 2 * tile + 2 * inner};
    const int64_t first = tiles_ * part / parts_, last = tiles_ * (part + 1) / parts_;
    for (int64_t k = first; k < last; ++k) pass_tile(n, k, k == first, r, partials_[part]);
  }

  void pass_tile(int64_t n, int64_t k, bool first, const Room& r, Partial& sums) {
    const int64_t size = 2 * s_.channels + 3 * s_.inner();
    const Prepared p = prepared_tile(static_cast<const float*>(a_.prepared) + (image_ * tiles_ + k) * size * kTile,
                                     s_.channels, s_.inner());
    const int64_t start = k * kTile, count = a_.pixels - start < kTile ? a_.pixels - start : kTile;
    if (n == 0) {
      dot(s_, prompt_tokens_.side(0, prompt_tokens_.query), p.key, r.logits);
      weigh(s_, count, nullptr, 0, s_.width, first, r.logits, sums);
      return gather_heads(s_, Form::projected, r.logits, p.value, first, sums);
    }
    const TwoWayLayer& l = a_.layers[n - 1];
    float* x = tokens_ + k * s_.channels * kTile;
    answer_tile(n, l, p, x, r);
    for (int64_t j = 0; j < s_.channels * kTile; j += N) store(r.sum + j, load(x + j) + load(p.position + j));
    ask_tile(n < a_.depth ? a_.layers[n].to_image : a_.final, x, count, first, r, sums);
    if (n == a_.depth) store_tile(x, start, count);
  }

  void copy(const float* from, float* to) const {
    for (int64_t j = 0; j < s_.channels * kTile; j += N) store(to + j, load(from + j));
  }

  void store_tile(const float* x, int64_t start, int64_t count) const {
    for (int64_t c = 0; c < s_.channels; ++c) {
      float* to = a_.image_out + (prompt_ * s_.channels + c) * a_.pixels + start;
      for (int64_t n = 0; n < count; ++n) to[n] = x[c * kTile + n];
    }
  }

  // x = norm(x + attention to the prompt); the first layer's x is the prepared one.
  void answer_tile(int64_t n, const TwoWayLayer& l, const Prepared& p, float* x, const Room& r) {
    const bool absorbed = form_ == Form::absorbed;
    if (n == 1) {
      copy(p.x, x);
      dot(s_, prompt_tokens_.side(0, prompt_tokens_.image_key), p.query, r.logits);
    } else {
      for (int64_t j = 0; j < s_.channels * kTile; j += N) store(r.sum + j, load(x + j) + load(p.position + j));
      if (!absorbed) project(l.to_prompt.query.weight, s_.inner(), s_.channels, r.sum, r.projected);
      dot(s_, absorbed ? side(s_, form_, to_prompt_key_) : prompt_tokens_.side(0, prompt_tokens_.image_key),
          absorbed ? r.sum : r.projected, r.logits);
    }
    softmax_over_prompt(s_, s_.tokens, key_bias_, r.logits);
    add_from_prompt(s_,
                    absorbed ? side(s_, form_, to_prompt_value_) : prompt_tokens_.side(0, prompt_tokens_.image_value),
                    l.to_prompt.out.weight, r.logits, x, r.projected);
    add_bias_and_normalise(s_.channels, kTile, l.to_prompt.out.bias, l.norm4, x, x);
  }

  void ask_tile(const AttentionWeights& w, const float* x, int64_t count, bool first, const Room& r, Partial& sums) {
    const bool absorbed = form_ == Form::absorbed;
    if (!absorbed) project(w.key.weight, s_.inner(), s_.channels, r.sum, r.projected);
    dot(s_, absorbed ? side(s_, form_, to_image_) : prompt_tokens_.side(0, prompt_tokens_.query),
        absorbed ? r.sum : r.projected, r.logits);
    weigh(s_, count, nullptr, 0, absorbed ? s_.channels : s_.width, first, r.logits, sums);
    if (absorbed) {
      turn_tile(s_.channels, x, r.turned, s_.channels);
    } else {
      project(w.value.weight, s_.inner(), s_.channels, x, r.projected);
      turn_tile(s_.inner(), r.projected, r.values, s_.inner());
    }
    gather_heads(s_, form_, r.logits, absorbed ? r.turned : r.values, first, sums);
  }

  const TwoWay& a_;
  const Heads s_;
  const int64_t prompt_, image_, tiles_, parts_;
  const Form form_;
  PromptTokens prompt_tokens_;
  Scratch memory_;
  Partial partials_[kMaxParts];
  float *to_image_, *to_prompt_key_, *to_prompt_value_, *key_bias_;  // absorbed rows
  float* tokens_;  // the image tokens between two layers, tile by tile
};

}  // namespace

void two_way_prepare_tile(const TwoWayImage& a, int64_t image, int64_t tile) {
  const int64_t start = tile * kTile, count = a.pixels - start < kTile ? a.pixels - start : kTile;
  const int64_t tiles = (a.pixels + kTile - 1) / kTile;
  float* x = a.out + (image * tiles + tile) * (2 * a.channels + 3 * a.inner) * kTile;
  float *position = x + a.channels * kTile, *key = position + a.channels * kTile, *query = key + a.inner * kTile;
  float* value = query + a.inner * kTile;
  for (int64_t c = 0; c < a.channels; ++c)
    for (int64_t n = 0; n < kTile; ++n) {
      x[c * kTile + n] = n < count ? a.image[(image * a.channels + c) * a.pixels + start + n] : 0;
      position[c * kTile + n] = n < count ? a.position[c * a.pixels + start + n] : 0;
    }
  Scratch memory((a.channels + a.inner) * kTile);
  float *sum = memory.data(), *room = sum + a.channels * kTile;
  for (int64_t j = 0; j < a.channels * kTile; ++j) sum[j] = x[j] + position[j];
  project(a.key.weight, a.inner, a.channels, sum, key);
  project(a.query.weight, a.inner, a.channels, sum, query);
  for (int64_t i = 0; a.query.bias && i < a.inner; ++i)
    for (int64_t n = 0; n < kTile; ++n) query[i * kTile + n] += a.query.bias[i];
  project(a.value.weight, a.inner, a.channels, x, room);
  turn_tile(a.inner, room, value, a.inner);
}

void two_way_prompt(const TwoWay& a, int64_t prompt, int threads) {
  threads = threads < 64 ? threads : 64;
  Decoder decoder(a, prompt, threads);  // the parts, and so the bits, do not depend on who is busy
  run_team(team_size(threads), Decoder::program, &decoder);
}

}  // namespace FP_ISA
}  // namespace fastprompt
