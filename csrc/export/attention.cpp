// Attention between prompts and images of an exported model.
#include <algorithm>

#include "attention/prompt.h"
#include "export/node.h"

namespace fastprompt {
namespace {

PromptPass pass_of(Node& node, size_t rows_at, size_t lengths_at, bool projected) {
  const Sizes image = node.input(0).shape, rows = node.input(rows_at).shape;
  need(image.size() == 4 && rows.size() == 4, "image is (B, C, H, W), the prompt's rows (B, H, T, width)");
  PromptPass a{};
  a.images = image[0], a.channels = image[1], a.pixels = image[2] * image[3];
  a.prompts = rows[0], a.heads = rows[1], a.tokens = rows[2], a.width = projected ? rows[3] : 16;
  need(a.images > 0 && a.prompts % a.images == 0, "there must be equally many prompts for every image");
  need(a.channels > 0 && a.width > 0 && a.channels % 16 == 0 && a.width % 16 == 0 &&
           (projected || rows[3] == a.channels),
       "channels and width must be multiples of 16 for the kernel: export with flavor='inlined'");
  a.image = node.floats(0), a.position = node.floats_or_null(1), a.threads = node.threads;
  need(!a.position || node.input(1).count() == a.channels * a.pixels, "position must be (1, C, H, W)");
  const Input lengths = node.input(lengths_at);
  if (lengths.count() != 1 || a.prompts == 1) {
    a.lengths = node.indices(lengths_at);
    need(lengths.count() == a.prompts, "lengths must have one number for each prompt");
    if (a.prompts == 1 && a.lengths[0] >= a.tokens) a.lengths = nullptr;
    for (int64_t k = 0; a.lengths && k < a.prompts; ++k)
      need(a.lengths[k] > 0 && a.lengths[k] <= a.tokens, "lengths must be between 1 and the tokens of a prompt");
  }
  return a;
}

template <bool projected>
void prompt_to_image(Node& node) {
  PromptPass a = pass_of(node, 2, projected ? 6 : 4, projected);
  std::vector<float> value;
  a.to_image.form = projected ? Form::projected : Form::absorbed;
  a.to_image.query = node.floats(2);
  if (projected) {
    const int64_t inner = a.heads * a.width;
    need(node.input(3).count() == product({inner, a.channels}) && node.input(4).count() == node.input(3).count(),
         "weights must be (heads x width, C)");
    a.to_image.key_weight = node.floats(3);
    const float* weight = node.floats(4);
    value.resize(inner * a.channels);  // the kernel wants it turned
    for (int64_t i = 0; i < inner; ++i)
      for (int64_t c = 0; c < a.channels; ++c) value[c * inner + i] = weight[i * a.channels + c];
    a.to_image.value_weight = value.data();
  }
  const size_t bias = projected ? 5 : 3;
  a.to_image.bias = node.floats_or_null(bias);
  need(!a.to_image.bias || node.input(bias).count() == product({a.prompts, a.tokens, a.pixels}),
       "bias must be (B, T, H, W)");
  a.to_image.out = node.float_output(0, node.input(2).shape);
  const int64_t numbers = a.prompts * a.heads * a.tokens * (projected ? a.width : a.channels);
  if (a.pixels * a.channels == 0) std::fill_n(a.to_image.out, numbers, 0.0f);
  prompt_pass(a);
}

template <bool projected>
void image_to_prompt(Node& node) {
  PromptPass a = pass_of(node, 2, projected ? 8 : 6, projected);
  ImageToPrompt& p = a.to_prompt;
  p.form = projected ? Form::projected : Form::absorbed;
  p.key = node.floats(2), p.key_bias = node.floats(3), p.value = node.floats(4);
  need(node.input(4).shape == node.input(2).shape && node.input(3).count() == a.prompts * a.heads * a.tokens,
       "value must have the shape of key, bias is (B, H, T)");
  if (projected) {
    const int64_t size = product({a.heads, a.width, a.channels});
    need(node.input(5).count() == size && node.input(6).count() == size, "weights must be heads x width by C");
    p.query_weight = node.floats(5), p.out_weight = node.floats(6);
  }
  const size_t bias = projected ? 7 : 5;
  need(node.input(bias).count() == a.channels, "out_bias must be (C)");
  p.out_bias = node.floats(bias);
  const Sizes image = node.input(0).shape;
  a.image_out = node.float_output(0, {a.prompts, a.channels, image[2], image[3]});
  prompt_pass(a);
}

// ---------------------------------------------------------------- shapes

std::vector<Sizes> like_query(const Known& k) { return {k.axes(2, {0, 1, 2, 3})}; }

std::vector<Sizes> image_of_each(const Known& k) { return {{k.axis(2, 0), k.axis(0, 1), k.axis(0, 2), k.axis(0, 3)}}; }

}  // namespace

FASTPROMPT_NODES(attention){
    {"PromptToImageAttention", "TTTTi", "T", "", prompt_to_image<false>, like_query},
    {"PromptToImageProjected", "TTTTTTi", "T", "", prompt_to_image<true>, like_query},
    {"ImageToPromptAttention", "TTTTTTi", "T", "", image_to_prompt<false>, image_of_each},
    {"ImageToPromptProjected", "TTTTTTTTi", "T", "", image_to_prompt<true>, image_of_each},
};

}  // namespace fastprompt
