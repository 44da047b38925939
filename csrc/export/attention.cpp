// The attention operators of an exported model.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "attention/prompt.h"
#include "attention/relative.h"
#include "attention/two_way.h"
#include "export/node.h"

namespace fastprompt {
namespace {

// ---------------------------------------------------------------- two-way transformer

constexpr size_t kFirstWeight = 3;
constexpr int64_t kLargestTile = 64;  // of image tokens, of any instruction set

struct Weights {
  Node& node;
  size_t at = kFirstWeight;
  const float* next(int64_t rows, int64_t columns) {
    need(node.input(at).count() == rows * columns, "a weight of TwoWayTransformer has a wrong size");
    return node.floats(at++);
  }
  Linear linear(int64_t out, int64_t in) {
    const float* weight = next(out, in);
    return {weight, next(out, 1)};
  }
  LayerNorm norm(int64_t channels, float eps) {
    const float* weight = next(channels, 1);
    return {weight, next(channels, 1), eps};
  }
  AttentionWeights attention(int64_t channels, int64_t inner) {
    const Linear query = linear(inner, channels), key = linear(inner, channels), value = linear(inner, channels);
    return {query, key, value, linear(channels, inner)};
  }
};

// The part of an image that all prompts share, and the numbers that it was made of.
struct Prepared {
  std::vector<float> made_of;
  std::unique_ptr<float, void (*)(void*)> rows{nullptr, std::free};  // aligned: kernels read whole cache lines of it
};

void append(std::vector<float>& to, const float* from, int64_t count) { to.insert(to.end(), from, from + count); }

bool equal_part(const std::vector<float>& all, size_t& at, const float* part, int64_t count) {
  const bool same = at + count <= all.size() && !std::memcmp(all.data() + at, part, sizeof(float) * count);
  at += count;
  return same;
}

// A tool asks about one image again and again: comparing 8 MB costs less than a tenth of preparing it.
std::shared_ptr<const Prepared> prepared(Node& node, const TwoWayImage& image) {
  const int64_t channels = image.channels, inner = image.inner, pixels = image.pixels;
  const std::pair<const float*, int64_t> parts[] = {{image.image, image.images * channels * pixels},
                                                    {image.position, channels * pixels},
                                                    {image.key.weight, inner * channels},
                                                    {image.key.bias, inner},
                                                    {image.value.weight, inner * channels},
                                                    {image.value.bias, inner},
                                                    {image.query.weight, inner * channels},
                                                    {image.query.bias, inner}};
  std::shared_ptr<const Prepared> kept;
  {
    std::lock_guard<std::mutex> lock(node.memory.mutex);
    kept = std::static_pointer_cast<const Prepared>(node.memory.kept);
  }
  if (kept) {
    size_t at = 0;
    bool same = true;
    for (const auto& [data, count] : parts) same = same && equal_part(kept->made_of, at, data, count);
    if (same && at == kept->made_of.size()) return kept;
  }
  const auto made = std::make_shared<Prepared>();
  for (const auto& [data, count] : parts) append(made->made_of, data, count);
  const int64_t tokens = (pixels + kLargestTile - 1) / kLargestTile * kLargestTile;
  const size_t bytes = sizeof(float) * image.images * tokens * (2 * channels + 3 * inner);
  made->rows.reset(static_cast<float*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  if (!made->rows) throw std::bad_alloc();
  TwoWayImage call = image;
  call.out = made->rows.get();
  two_way_prepare(call);
  std::lock_guard<std::mutex> lock(node.memory.mutex);
  node.memory.kept = made;
  return made;
}

void transformer(Node& node) {
  const Sizes image = node.input(0).shape, prompt = node.input(2).shape;
  need(image.size() == 4 && prompt.size() == 3 && image[1] == prompt[2], "image is (B, C, H, W), prompt (B, T, C)");
  TwoWay a{};
  a.images = image[0], a.channels = image[1], a.pixels = image[2] * image[3];
  a.prompts = prompt[0], a.tokens = prompt[1];
  const auto& numbers = node.attributes.ints;
  a.heads = numbers.at("heads"), a.width = numbers.at("width"), a.depth = numbers.at("depth");
  need(a.images > 0 && a.prompts % a.images == 0, "there must be equally many prompts for every image");
  need(a.heads > 0 && a.width % 16 == 0 && a.channels % (16 * a.heads) == 0,
       "channels of a head must be multiples of 16 for the kernel: export with flavor='inlined'");
  need(node.inputs() == kFirstWeight + 36 * static_cast<size_t>(a.depth) + 10, "wrong number of weights for the depth");
  need(node.input(1).count() == a.channels * a.pixels, "position must be (1, C, H, W)");
  const int64_t inner = a.heads * a.width;
  a.mlp = node.input(kFirstWeight + 20).shape.at(0);
  need(a.mlp % 16 == 0, "the width of the MLP must be a multiple of 16 for the kernel: export with flavor='inlined'");
  const float eps = node.attributes.floats.at("eps");
  Weights w{node};
  std::vector<TwoWayLayer> layers(a.depth);
  for (TwoWayLayer& l : layers) {
    l.self = w.attention(a.channels, a.channels), l.norm1 = w.norm(a.channels, eps);
    l.to_image = w.attention(a.channels, inner), l.norm2 = w.norm(a.channels, eps);
    l.mlp1 = w.linear(a.mlp, a.channels), l.mlp2 = w.linear(a.channels, a.mlp), l.norm3 = w.norm(a.channels, eps);
    l.to_prompt = w.attention(a.channels, inner), l.norm4 = w.norm(a.channels, eps);
  }
  a.final = w.attention(a.channels, inner), a.final_norm = w.norm(a.channels, node.attributes.floats.at("final_eps"));
  a.layers = layers.data(), a.threads = node.threads;
  a.prompt = node.floats(2);
  a.prompt_out = node.float_output(0, prompt);
  a.image_out = node.float_output(1, {a.prompts, a.channels, image[2], image[3]});
  if (a.prompts * a.tokens * a.pixels == 0) return;
  const TwoWayLayer& first = layers.at(0);
  const TwoWayImage of{a.images,
                       a.channels,
                       a.pixels,
                       inner,
                       node.floats(0),
                       node.floats(1),
                       first.to_image.key,
                       first.to_image.value,
                       first.to_prompt.query,
                       nullptr,
                       node.threads};
  const auto kept = prepared(node, of);
  a.prepared = kept->rows.get();
  two_way(a);
}

// ---------------------------------------------------------------- prompts and images

PromptPass pass_of(Node& node, size_t rows_at, size_t lengths_at, bool projected) {
  const Sizes image = node.input(0).shape, rows = node.input(rows_at).shape;
  need(image.size() == 4 && rows.size() == 4, "image is (B, C, H, W), the prompt's rows (B, H, T, width)");
  PromptPass a{};
  a.images = image[0], a.channels = image[1], a.pixels = image[2] * image[3];
  a.prompts = rows[0], a.heads = rows[1], a.tokens = rows[2], a.width = projected ? rows[3] : 16;
  need(a.images > 0 && a.prompts % a.images == 0, "there must be equally many prompts for every image");
  need(a.channels % 16 == 0 && a.width % 16 == 0 && (projected || rows[3] == a.channels),
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
    need(node.input(3).count() == inner * a.channels && node.input(4).count() == inner * a.channels,
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
  need(!a.to_image.bias || node.input(bias).count() == a.prompts * a.tokens * a.pixels, "bias must be (B, T, H, W)");
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
    const int64_t size = a.heads * a.width * a.channels;
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

// ---------------------------------------------------------------- relative position

void relative(Node& node) {
  const Sizes q = node.input(0).shape, size = node.attributes.int_lists.at("size");
  const Sizes window = node.attributes.int_lists.at("window");
  need(q.size() == 4 && size.size() == 2 && window.size() == 2, "q must be (B, N, heads, width)");
  need(node.input(1).shape == q && node.input(2).shape == q, "k and v must have the shape of q");
  RelativeAttention a{};
  a.images = q[0], a.tokens = q[1], a.heads = q[2], a.width = q[3], a.height = size[0], a.columns = size[1];
  need(a.tokens == a.height * a.columns, "q must hold the tokens of the grid");
  need(a.width % 16 == 0, "the width of a head must be a multiple of 16 for the kernel: export with flavor='inlined'");
  if (window != size) a.window_height = window[0], a.window_columns = window[1];
  need(window[0] > 0 && window[1] > 0 && window[0] < 32768 && window[1] < 32768, "windows must be positive");
  need(node.input(3).count() == (2 * window[0] - 1) * a.width && node.input(4).count() == (2 * window[1] - 1) * a.width,
       "rel_h and rel_w must be (2 size - 1, width)");
  const TokenRows rows{nullptr, a.tokens * a.heads * a.width, a.heads * a.width, a.width};
  a.query = a.key = a.value = rows;
  a.query.data = node.floats(0), a.key.data = node.floats(1), a.value.data = node.floats(2);
  a.rel_h = node.floats(3), a.rel_w = node.floats(4);
  a.pad_key = node.floats_or_null(5), a.pad_value = node.floats_or_null(6);
  const bool pads = a.window_height && (size[0] % window[0] || size[1] % window[1]);
  need(!pads || (node.input(5).count() == a.heads * a.width && node.input(6).count() == a.heads * a.width),
       "pad_key and pad_value must be (heads, width) where windows do not divide the grid");
  a.scale = node.attributes.floats.at("scale");
  a.precision = Precision::highest, a.threads = node.threads;
  a.out = node.float_output(0, q);
  if (a.images * a.tokens * a.heads > 0) relative_attention(a);
}

}  // namespace

const std::vector<Kernel> kAttentionKernels = {
    {"TwoWayTransformer", "T+", "TT", "heads:i width:i depth:i channels:i eps:f final_eps:f", transformer},
    {"RelativePositionAttention", "TTTTTTT", "T", "size:I window:I scale:f", relative},
    {"PromptToImageAttention", "TTTTi", "T", "", prompt_to_image<false>},
    {"PromptToImageProjected", "TTTTTTi", "T", "", prompt_to_image<true>},
    {"ImageToPromptAttention", "TTTTTTi", "T", "", image_to_prompt<false>},
    {"ImageToPromptProjected", "TTTTTTTTi", "T", "", image_to_prompt<true>},
};

}  // namespace fastprompt
