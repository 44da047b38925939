#include <vector>

#include "decoder/fields.h"
#include "decoder/low_rank.h"
#include "decoder/two_way.h"

using namespace fastprompt;

namespace {

// Weights of all layers and of the final attention, in the order of the fields of TwoWayLayer.
struct Transformer {
  int64_t mlp;
  std::vector<TwoWayLayer> layers;
  AttentionWeights final;
  LayerNorm final_norm;

  Transformer(Fields& f, int64_t channels, int64_t inner, int64_t depth) {
    Weights w(f, "weights");
    float eps[2];
    f.numbers("eps", eps);
    constexpr size_t kFirstMlp = 20;
    mlp = w.size(kFirstMlp, 0);
    for (int64_t n = 0; n < depth; ++n) {
      TwoWayLayer l;
      l.self = w.attention(channels, channels), l.norm1 = w.norm(channels, eps[0]);
      l.to_image = w.attention(inner, channels), l.norm2 = w.norm(channels, eps[0]);
      l.mlp1 = w.linear(mlp, channels), l.mlp2 = w.linear(channels, mlp), l.norm3 = w.norm(channels, eps[0]);
      l.to_prompt = w.attention(inner, channels), l.norm4 = w.norm(channels, eps[0]);
      layers.push_back(l);
    }
    final = w.attention(inner, channels), final_norm = w.norm(channels, eps[1]);
    w.done();
  }
};

// The fields of TwoWay but those of the weights, `prepared` and `image_out`.
TwoWay two_way_fields(Fields& f) {
  TwoWay a{};
  a.prompt = f.array("prompt", "prompts tokens channels"), a.prompt_out = f.result("out", "prompts tokens channels");
  f.sizes({{"prompts", &a.prompts}, {"tokens", &a.tokens}, {"channels", &a.channels}});
  a.images = f.number<int64_t>("images"), a.pixels = f.number<int64_t>("pixels");
  a.heads = number_up_to(f, "heads", 1 << 12), a.width = number_up_to(f, "head_width", 1 << 12);
  a.depth = number_up_to(f, "layers", 1 << 10), a.mlp = f.number<int64_t>("mlp"), a.threads = f.threads();
  f.need(a.images >= 1 && a.prompts % a.images == 0, "images", "must divide the number of prompts");
  f.need(a.pixels >= 1 && a.pixels < int64_t{1} << 40, "pixels", "must be positive");
  f.need(a.tokens >= 1 && a.channels >= 1, "prompt", "must have tokens");
  f.need(a.channels % (16 * a.heads) == 0, "prompt", "must have a multiple of 16 channels for each head");
  f.need(a.width % 16 == 0, "head_width", "must be a multiple of 16");
  f.need(a.mlp >= 16 && a.mlp % 16 == 0, "mlp", "must be a multiple of 16");
  return a;
}

void set(TwoWay& a, Fields& f, const Transformer& t) {
  f.need(a.mlp == t.mlp, "mlp", "must be the width of the weights");
  a.layers = t.layers.data(), a.final = t.final, a.final_norm = t.final_norm;
}

}  // namespace

FASTPROMPT_BIND(two_way) {
  m.attr("decoder_tile") = kLargestTile;
  define(m, "two_way_prepare", [](Fields& f) {
    TwoWayImage a{};
    a.image = f.array("image", "images channels height width");
    a.position = f.array("position", "1 channels height width");
    f.sizes({{"images", &a.images}, {"channels", &a.channels}});
    a.pixels = f.size("height") * f.size("width");
    Weights w(f, "weights");
    a.inner = w.rows();
    a.key = w.linear(a.inner, a.channels), a.value = w.linear(a.inner, a.channels);
    a.query = w.linear(a.inner, a.channels), w.done();
    f.need(a.inner % 16 == 0, "weights", "must have a multiple of 16 rows");
    a.out = f.result("prepared", "prepared");
    f.need(is_product(f.size("prepared"), {a.images, padded(a.pixels), 2 * a.channels + 3 * a.inner}), "prepared",
           "must be of these images");
    need_aligned(f, "prepared", a.out);
    a.threads = f.threads();
    f.run(two_way_prepare, a);
  });
  define(m, "two_way", [](Fields& f) {
    TwoWay a = two_way_fields(f);
    const Transformer t(f, a.channels, a.heads * a.width, a.depth);
    set(a, f, t);
    a.prepared = f.array("prepared", "prepared");
    f.need(is_product(f.size("prepared"), {a.images, padded(a.pixels), 2 * a.channels + 3 * a.heads * a.width}),
           "prepared", "must be of these images");
    need_aligned(f, "prepared", a.prepared);
    a.image_out = f.result("image_out", {a.prompts, a.channels, a.pixels});
    f.run(two_way, a);
  });
  define(m, "low_rank_prepare", [](Fields& f) {
    LowRankImage a{};
    a.image = f.array("image", "images channels height width");
    a.position = f.array("position", "1 channels height width");
    a.up_weight = f.array("up", "channels middle 2 2");
    f.sizes({{"images", &a.images}, {"channels", &a.channels}});
    a.pixels = f.size("height") * f.size("width");
    a.layout = layout_fields(f, 0, 4 * f.size("middle"));
    const Transformer t(f, a.channels, a.layout.inner(), a.layout.depth);
    f.need(a.channels >= 16 && a.channels % 16 == 0, "image", "must have a multiple of 16 channels");
    f.need(a.layout.width % 16 == 0, "head_width", "must be a multiple of 16");
    a.layers = t.layers.data(), a.final = t.final;
    a.out = prepared_field(f, a.layout, a.images, a.pixels), f.result<char>("prepared", "prepared");
    a.threads = f.threads();
    f.run(low_rank_prepare, a);
  });
  define(m, "low_rank", [](Fields& f) {
    TwoWay a = two_way_fields(f);
    const float* up = f.array("up", "channels middle 2 2");
    const LowRankLayout layout = layout_fields(f, a.tokens, 4 * f.size("middle"));
    const Transformer t(f, a.channels, layout.inner(), layout.depth);
    set(a, f, t);
    a.prepared = prepared_field(f, layout, a.images, a.pixels);
    a.image_out = f.result("image_out", "prompts state");
    f.need(is_product(f.size("state"), {layout.prompt_rows(), layout.up + padded(a.pixels)}), "image_out",
           "must be of these tokens");
    need_aligned(f, "image_out", a.image_out);
    const Precision p = f.precision();
    f.run(low_rank, LowRank{a, layout, up, bf16(p), p == Precision::high});
  });
}
