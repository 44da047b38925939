#include "attention/two_way.h"

#include "attention/tile.h"
#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int64_t kRowsOfStage = 32;  // outputs of a linear layer that a thread takes at a time
constexpr int64_t kParts = 12;        // of the image, for each thread: 0.2 ms for SAM, see Member::stage

int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// A tile of a prepared image.
struct Prepared {
  const float *x, *position, *key, *query;  // rows x tile
  const float* value;                       // tile x inner
};

Prepared prepared_tile(const float* tile, int64_t channels, int64_t inner) {
  const float *position = tile + channels * kTile, *key = position + channels * kTile;
  return {tile, position, key, key + inner * kTile, key + 2 * inner * kTile};
}

// All of one prompt. Matrices of prompt tokens are tiles too: rows are channels, columns are tokens.
class Decoder {
 public:
  Decoder(const TwoWay& a, int64_t prompt, int threads)
      : a_(a),
        s_{a.heads, a.tokens, a.width, a.channels},
        prompt_(prompt),
        image_(prompt / (a.prompts / a.images)),
        tiles_((a.pixels + kTile - 1) / kTile),
        parts_(threads == 1                ? 1
               : tiles_ < kParts * threads ? tiles_
                                           : kParts * threads),
        columns_(round_up(a.tokens, N)),
        form_(s_.rows() * s_.channels < s_.inner() * (s_.channels + s_.tokens) ? Form::absorbed : Form::projected),
        memory_(floats()) {
    float* at = memory_.data();
    const auto take = [&](int64_t floats) {
      float* p = at;
      at += round_up(floats, 16);
      return p;
    };
    const int64_t matrix = (a.channels > s_.inner() ? a.channels : s_.inner()) * columns_;
    float** matrices[] = {&start_, &q_, &sum_, &query_, &key_, &value_, &mixed_, &image_key_, &image_value_};
    for (float** m : matrices) *m = take(matrix);
    hidden_ = take(a.mlp * columns_);
    float** rows[] = {&to_image_, &to_prompt_key_, &to_prompt_value_};
    for (float** m : rows) *m = take(s_.rows() * s_.channels);
    key_bias_ = take(s_.rows());
    turned_weight_ = take(s_.inner() * s_.channels);
    const int64_t sums = round_up(2 * s_.rows(), 16) + s_.rows() * s_.channels;
    for (int64_t k = 0; k < parts_; ++k) {
      float* p = take(sums);
      partial(k) = {p, p + s_.rows(), p + round_up(2 * s_.rows(), 16)};
    }
    tokens_ = take(tiles_ * s_.channels * kTile);
  }

  static void program(Member& m, void* self) { static_cast<Decoder*>(self)->run(m); }

 private:
  static constexpr int64_t kMaxParts = 64 * kParts;

  int64_t floats() const {
    const int64_t rows = s_.rows() * s_.channels + 2 * s_.rows() + 64;
    return 9 * (a_.channels + s_.inner()) * columns_ + a_.mlp * columns_ + (4 + parts_) * rows +
           s_.inner() * s_.channels + tiles_ * s_.channels * kTile + 1024;
  }

  Partial& partial(int64_t k) { return partials_[k]; }

  template <class Body>
  static void each(Member& m, int64_t items, Body body, bool one_by_one = false) {
    m.stage(items, one_by_one);
    for (int64_t from, to; m.next(&from, &to);)
      for (int64_t n = from; n < to; ++n) body(n);
  }

  // Every thread of the team runs this; the stages keep them together.
  void run(Member& m) {
    each(m, 1, [&](int64_t) { load_prompt(); });
    for (int64_t n = 0; n <= a_.depth; ++n) {
      if (n > 0) after_image(m, a_.layers[n - 1]);
      const AttentionWeights& next = n < a_.depth ? a_.layers[n].to_image : a_.final;
      if (n < a_.depth) attend_to_itself(m, a_.layers[n], n == 0);
      ask_image(m, next, n == 0);
      each(m, parts_, [&](int64_t part) { pass(n, part); }, true);
    }
    add_answer(m, a_.final, a_.final_norm, false);
    each(m, 1, [&](int64_t) { store_prompt(); });
  }

  void load_prompt() {
    const float* from = a_.prompt + prompt_ * a_.tokens * a_.channels;
    for (int64_t c = 0; c < a_.channels; ++c)
      for (int64_t t = 0; t < columns_; ++t)
        start_[c * columns_ + t] = q_[c * columns_ + t] = t < a_.tokens ? from[t * a_.channels + c] : 0;
  }

  void store_prompt() {
    float* to = a_.prompt_out + prompt_ * a_.tokens * a_.channels;
    for (int64_t c = 0; c < a_.channels; ++c)
      for (int64_t t = 0; t < a_.tokens; ++t) to[t * a_.channels + c] = q_[c * columns_ + t];
  }

  // ---------------------------------------------------------------- on prompt tokens

  // y = scale (W x + b), rows in parallel.
  void linear(Member& m, const Linear& l, const float* x, int64_t depth, float* y, int64_t rows, float scale = 1,
              bool relu = false) {
    each(m, (rows + kRowsOfStage - 1) / kRowsOfStage, [&](int64_t block) {
      const int64_t from = block * kRowsOfStage, count = rows - from < kRowsOfStage ? rows - from : kRowsOfStage;
      gemm<false>({l.weight + from * depth, depth, 1}, x, columns_, y + from * columns_, columns_, count, columns_ / N,
                  depth);
      for (int64_t r = from; r < from + count; ++r)
        for (int64_t t = r * columns_; t < (r + 1) * columns_; t += N) {
          const vf value = (load(y + t) + broadcast(l.bias ? l.bias[r] : 0.f)) * broadcast(scale);
          store(y + t, relu ? max(value, broadcast(0.f)) : value);
        }
    });
  }

  // q = norm(q + x), and sum = q + start.
  void add_and_normalise(Member& m, const float* x, const LayerNorm& norm, bool keep = true) {
    each(m, 1, [&](int64_t) {
      for (int64_t k = 0; k < a_.channels * columns_; ++k) q_[k] = keep ? q_[k] + x[k] : x[k];
      for (int64_t t = 0; t < columns_; t += N) normalise_columns(q_ + t, norm);
      for (int64_t k = 0; k < a_.channels * columns_; ++k) sum_[k] = q_[k] + start_[k];
    });
  }

  void normalise_columns(float* x, const LayerNorm& norm) const {
    const vf share = broadcast(1.f / a_.channels);
    vf total = broadcast(0.f), squares = total;
    for (int64_t c = 0; c < a_.channels; ++c) total = total + load(x + c * columns_);
    const vf mean = total * share;
    for (int64_t c = 0; c < a_.channels; ++c) {
      const vf value = load(x + c * columns_) - mean;
      squares = fma(value, value, squares);
    }
    const vf scale = broadcast(1.f) / sqrt(fma(squares, share, broadcast(norm.eps)));
    for (int64_t c = 0; c < a_.channels; ++c)
      store(x + c * columns_,
            fma((load(x + c * columns_) - mean) * scale, broadcast(norm.weight[c]), broadcast(norm.bias[c])));
  }

  void attend_to_itself(Member& m, const TwoWayLayer& l, bool first) {
    const float* x = first ? q_ : sum_;
    const int64_t width = a_.channels / a_.heads;
    linear(m, l.self.query, x, a_.channels, query_, a_.channels, 1 / __builtin_sqrtf(static_cast<float>(width)));
    linear(m, l.self.key, x, a_.channels, key_, a_.channels);
    linear(m, l.self.value, q_, a_.channels, value_, a_.channels);
    each(m, a_.heads, [&](int64_t h) { self_attention(h * width * columns_, width); });
    linear(m, l.self.out, mixed_, a_.channels, query_, a_.channels);
    add_and_normalise(m, query_, l.norm1, !first);
  }

  // Logits stand as (key token, query token): the softmax runs over rows.
  void self_attention(int64_t head, int64_t width) {
    Scratch memory(a_.tokens * columns_);
    float* logits = memory.data();
    gemm<false>({key_ + head, 1, columns_}, query_ + head, columns_, logits, columns_, a_.tokens, columns_ / N, width);
    for (int64_t t = 0; t < columns_; t += N) {
      vf peak = broadcast(kLowest), total = broadcast(0.f);
      for (int64_t u = 0; u < a_.tokens; ++u) peak = max(load(logits + u * columns_ + t), peak);
      for (int64_t u = 0; u < a_.tokens; ++u) {
        const vf weight = exp(load(logits + u * columns_ + t) - peak);
        store(logits + u * columns_ + t, weight);
        total = total + weight;
      }
      for (int64_t u = 0; u < a_.tokens; ++u) store(logits + u * columns_ + t, load(logits + u * columns_ + t) / total);
    }
    gemm<false>({value_ + head, columns_, 1}, logits, columns_, mixed_ + head, columns_, width, columns_ / N,
                a_.tokens);
  }

  // ---------------------------------------------------------------- between prompt and image

  Side column_side(const float* x) const { return {Form::projected, x, a_.width * columns_, 1, columns_}; }

  // rows[h T + t] = x of the head times its rows of `weight` (inner x channels): the projection, absorbed.
  void absorb(int64_t h, const float* x, const float* weight, float* rows) const {
    gemm<false>({x + h * a_.width * columns_, 1, columns_}, weight + h * a_.width * a_.channels, a_.channels,
                rows + h * a_.tokens * a_.channels, a_.channels, a_.tokens, a_.channels / N, a_.width);
  }

  float scale() const { return 1 / __builtin_sqrtf(static_cast<float>(a_.width)); }

  void ask_image(Member& m, const AttentionWeights& w, bool cached) {
    linear(m, w.query, sum_, a_.channels, query_, s_.inner(), scale());
    if (cached || form_ == Form::projected) return;
    each(m, a_.heads, [&](int64_t h) { absorb(h, query_, w.key.weight, to_image_); });
  }

  // After a pass: the answer of the image, the MLP, and the prompt side of the image's question.
  void after_image(Member& m, const TwoWayLayer& l) {
    const bool first = &l == a_.layers;
    add_answer(m, l.to_image, l.norm2, first);
    linear(m, l.mlp1, q_, a_.channels, hidden_, a_.mlp, 1, true);
    linear(m, l.mlp2, hidden_, a_.mlp, mixed_, a_.channels);
    add_and_normalise(m, mixed_, l.norm3);
    linear(m, l.to_prompt.key, sum_, a_.channels, image_key_, s_.inner(), scale());
    linear(m, l.to_prompt.value, q_, a_.channels, image_value_, s_.inner());
    each(m, a_.heads, [&](int64_t h) { answer_image(h, l.to_prompt, first); });
  }

  void answer_image(int64_t h, const AttentionWeights& w, bool first) {
    for (int64_t t = 0; t < a_.tokens; ++t) {
      float bias = 0;  // the query's bias; a prepared query has it
      for (int64_t i = h * a_.width; !first && w.query.bias && i < (h + 1) * a_.width; ++i)
        bias += image_key_[i * columns_ + t] * w.query.bias[i];
      key_bias_[h * a_.tokens + t] = bias;
    }
    if (form_ == Form::projected) return;
    if (!first) absorb(h, image_key_, w.query.weight, to_prompt_key_);
    for (int64_t i = h * a_.width; i < (h + 1) * a_.width; ++i)
      for (int64_t c = 0; c < a_.channels; ++c) turned_weight_[i * a_.channels + c] = w.out.weight[c * s_.inner() + i];
    absorb(h, image_value_, turned_weight_, to_prompt_value_);
  }

  // What the prompt gathered in the last pass: value bias and output projection, residual, norm.
  void add_answer(Member& m, const AttentionWeights& w, const LayerNorm& norm, bool prepared) {
    each(m, a_.heads, [&](int64_t h) { merge_head(h, w, prepared || form_ == Form::projected); });
    linear(m, w.out, key_, s_.inner(), query_, a_.channels);
    add_and_normalise(m, query_, norm);
  }

  // key_ = the head's answer, (width x columns).
  void merge_head(int64_t h, const AttentionWeights& w, bool projected) {
    const int64_t size = projected ? a_.width : a_.channels;
    Scratch memory(size * columns_ + size);
    float *turned = memory.data(), *row = turned + size * columns_;
    for (int64_t t = 0; t < columns_; ++t) {
      if (t < a_.tokens) merge_row(partials_, static_cast<int>(parts_), h * a_.tokens + t, size, row);
      for (int64_t c = 0; c < size; ++c) turned[c * columns_ + t] = t < a_.tokens ? row[c] : 0;
    }
    float* out = key_ + h * a_.width * columns_;
    if (projected)
      for (int64_t k = 0; k < a_.width * columns_; ++k) out[k] = turned[k];
    else
      gemm<false>({w.value.weight + h * a_.width * a_.channels, a_.channels, 1}, turned, columns_, out, columns_,
                  a_.width, columns_ / N, a_.channels);
    for (int64_t i = 0; i < a_.width && w.value.bias; ++i)
      for (int64_t t = 0; t < columns_; ++t) out[i * columns_ + t] += w.value.bias[h * a_.width + i];
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
    for (int64_t k = first; k < last; ++k) pass_tile(n, k, k == first, r, partial(part));
  }

  void pass_tile(int64_t n, int64_t k, bool first, const Room& r, Partial& sums) {
    const int64_t size = 2 * s_.channels + 3 * s_.inner();
    const Prepared p = prepared_tile(a_.prepared + (image_ * tiles_ + k) * size * kTile, s_.channels, s_.inner());
    const int64_t start = k * kTile, count = a_.pixels - start < kTile ? a_.pixels - start : kTile;
    if (n == 0) {
      dot(s_, column_side(query_), p.key, r.logits);
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
      dot(s_, column_side(image_key_), p.query, r.logits);
    } else {
      for (int64_t j = 0; j < s_.channels * kTile; j += N) store(r.sum + j, load(x + j) + load(p.position + j));
      if (!absorbed) project(l.to_prompt.query.weight, s_.inner(), s_.channels, r.sum, r.projected);
      dot(s_, absorbed ? side(s_, form_, to_prompt_key_) : column_side(image_key_), absorbed ? r.sum : r.projected,
          r.logits);
    }
    softmax_over_prompt(s_, s_.tokens, key_bias_, r.logits);
    add_from_prompt(s_, absorbed ? side(s_, form_, to_prompt_value_) : column_side(image_value_),
                    l.to_prompt.out.weight, r.logits, x, r.projected);
    add_bias_and_normalise(s_.channels, l.to_prompt.out.bias, {l.norm4.weight, l.norm4.bias, l.norm4.eps}, x);
  }

  void ask_tile(const AttentionWeights& w, const float* x, int64_t count, bool first, const Room& r, Partial& sums) {
    const bool absorbed = form_ == Form::absorbed;
    if (!absorbed) project(w.key.weight, s_.inner(), s_.channels, r.sum, r.projected);
    dot(s_, absorbed ? side(s_, form_, to_image_) : column_side(query_), absorbed ? r.sum : r.projected, r.logits);
    weigh(s_, count, nullptr, 0, absorbed ? s_.channels : s_.width, first, r.logits, sums);
    if (absorbed) {
      turn_tile(s_.channels, x, r.turned);
    } else {
      project(w.value.weight, s_.inner(), s_.channels, x, r.projected);
      turn_tile(s_.inner(), r.projected, r.values);
    }
    gather_heads(s_, form_, r.logits, absorbed ? r.turned : r.values, first, sums);
  }

  const TwoWay& a_;
  const Heads s_;
  const int64_t prompt_, image_, tiles_, parts_, columns_;
  const Form form_;
  Scratch memory_;
  Partial partials_[kMaxParts];
  float *start_, *q_, *sum_;                         // tokens as they came, as they are, and both added
  float *query_, *key_, *value_, *mixed_, *hidden_;  // projections of them
  float *image_key_, *image_value_;                  // the prompt side of the image's question
  float *to_image_, *to_prompt_key_, *to_prompt_value_, *key_bias_, *turned_weight_;  // absorbed rows
  float* tokens_;  // the image tokens between two layers, tile by tile
};

}  // namespace

int64_t two_way_tile_floats(int64_t channels, int64_t inner) { return (2 * channels + 3 * inner) * kTile; }

void two_way_prepare_tile(const TwoWayImage& a, int64_t image, int64_t tile) {
  const int64_t start = tile * kTile, count = a.pixels - start < kTile ? a.pixels - start : kTile;
  const int64_t tiles = (a.pixels + kTile - 1) / kTile;
  float* x = a.out + (image * tiles + tile) * two_way_tile_floats(a.channels, a.inner);
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
  turn_tile(a.inner, room, value);
}

void two_way_prompt(const TwoWay& a, int64_t prompt, int threads) {
  threads = threads < 64 ? threads : 64;
  Decoder decoder(a, prompt, threads);  // the parts, and so the bits, do not depend on who is busy
  run_team(team_size(threads), Decoder::program, &decoder);
}

}  // namespace FP_ISA
}  // namespace fastprompt
