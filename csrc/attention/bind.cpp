#include "bind.h"

#include "attention/prompt.h"

using namespace fastprompt;

namespace {

// What either pass reads besides the rows of the prompt's side, which it returns through `data`: of `channels` numbers
// if absorbed, or of the width of a head if `weight`, the first of the two matrices, is given.
PromptPass prompt_fields(Fields& f, const char* rows, const char* weight, const float*& data) {
  PromptPass a{};
  a.image = f.array("image", "images channels height width");
  a.position = f.optional("position", "1 channels height width");
  f.sizes({{"images", &a.images}, {"channels", &a.channels}});
  a.pixels = f.size("height") * f.size("width");
  const bool projected = f.given(weight);
  if (!projected) f.name("row", a.channels);
  data = f.array(rows, "prompts heads tokens row");
  f.sizes({{"prompts", &a.prompts}, {"heads", &a.heads}, {"tokens", &a.tokens}});
  a.width = projected ? f.size("row") : kPromptUnit;  // absorbed rows have none
  f.need(a.channels > 0 && a.channels % kPromptUnit == 0, "image", "must have channels in a multiple of 16");
  f.need(a.width > 0 && a.width % kPromptUnit == 0, rows, "must have a width that is a multiple of 16");
  f.need(a.heads > 0 && a.tokens > 0, rows, "must have heads and tokens");
  const bool shared = a.prompts == 0 || (a.images > 0 && a.prompts % a.images == 0);
  f.need(shared, rows, "must be of as many prompts for every image");
  a.lengths = f.optional<int64_t>("lengths", "prompts");
  for (int64_t n = 0; a.lengths && n < a.prompts; ++n)
    f.need(a.lengths[n] > 0 && a.lengths[n] <= a.tokens, "lengths", "must be between 1 and the number of tokens");
  a.threads = f.threads();
  return a;
}

// The matrices of a projected pass; null if absorbed.
Form matrices(Fields& f, const PromptPass& a, const char* in, const char* out, const float*& first,
              const float*& second) {
  const int64_t inner = a.heads * a.width;
  first = f.optional(in, {inner, a.channels}), second = f.optional(out, {a.channels, inner});
  if (!first != !second) f.fail(out, std::string("must be given with ") + in + ", and only with it");
  return first ? Form::projected : Form::absorbed;
}

}  // namespace

FASTPROMPT_BIND(attention) {
  m.attr("prompt_unit") = kPromptUnit;
  define(m, "prompt_to_image", [](Fields& f) {
    PromptToImage to{};
    PromptPass a = prompt_fields(f, "query", "key_weight", to.query);
    to.form = matrices(f, a, "key_weight", "value_weight", to.key_weight, to.value_weight);
    f.need(a.pixels > 0, "image", "must have pixels");
    to.bias = f.optional("bias", "prompts tokens height width");
    to.out = f.result("out", "prompts heads tokens row");
    a.to_image = to;
    f.run(prompt_pass, a);
  });
  define(m, "image_to_prompt", [](Fields& f) {
    ImageToPrompt to{};
    PromptPass a = prompt_fields(f, "key", "query_weight", to.key);
    to.key_bias = f.array("bias", "prompts heads tokens"), to.value = f.array("value", "prompts heads tokens row");
    to.form = matrices(f, a, "query_weight", "out_weight", to.query_weight, to.out_weight);
    to.out_bias = f.array("out_bias", "channels");
    to.norm_weight = f.optional("norm_weight", "channels"), to.norm_bias = f.optional("norm_bias", "channels");
    f.need(!to.norm_weight == !to.norm_bias, "norm_bias", "must be given with norm_weight, and only with it");
    to.residual = f.flag("residual"), to.eps = f.number<float>("eps");
    a.to_prompt = to, a.image_out = f.result("out", "prompts channels height width");
    f.run(prompt_pass, a);
  });
}
