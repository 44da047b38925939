#include <pybind11/stl.h>

#include <vector>

#include "decoder/fields.h"
#include "decoder/head.h"
#include "decoder/mlp.h"

using namespace fastprompt;

namespace {

// The fields of MaskHead that do not depend on the form of the image; `a` has the image's sizes.
void head_fields(Fields& f, MaskHead& a) {
  Weights w(f, "weights");
  a.channels = w.size(0, 0), a.middle = w.size(0, 1), a.depth = w.size(4, 1);
  a.weight1 = w.next({a.channels, a.middle, 2, 2}), a.bias1 = w.next({a.middle});
  a.norm_weight = w.next({a.middle}), a.norm_bias = w.next({a.middle});
  a.weight2 = w.next({a.middle, a.depth, 2, 2}), a.bias2 = w.next({a.depth}), w.done();
  f.name("depth", a.depth);
  a.vectors = f.array("vectors", "prompts masks depth");
  f.sizes({{"prompts", &a.prompts}, {"masks", &a.masks}});
  f.need(f.given("detail1") == f.given("detail2"), "detail1 and detail2", "must both be given, or none");
  if (f.given("detail1") && !a.images)
    a.images = f.read("detail1").shape[0];
  else if (!a.images)
    a.images = 1;
  a.detail1 = f.optional("detail1", {a.images, a.middle, 2 * a.height, 2 * a.width});
  a.detail2 = f.optional("detail2", {a.images, a.depth, 4 * a.height, 4 * a.width});
  f.need(a.images >= 1 && a.prompts % a.images == 0, "vectors", "must be of as many prompts for every image");
  a.out = f.result("out", {a.prompts, a.masks, 4 * a.height, 4 * a.width});
  a.eps = f.number<float>("eps"), a.threads = f.threads();
}

}  // namespace

FASTPROMPT_BIND(decoder) {
  define(m, "mask_head", [](Fields& f) {
    MaskHead a{};
    a.image = f.array("image", "prompts channels height width");
    f.sizes({{"height", &a.height}, {"width", &a.width}});
    head_fields(f, a);
    // A null image, as an empty tensor may have, is one in its low-rank form.
    f.need(a.channels > 0 && a.channels == f.size("channels"), "image", "must have the channels of the weights");
    f.run(mask_head, a);
  });
  // Of the image in its low-rank form, which low_rank has made.
  define(m, "low_rank_masks", [](Fields& f) {
    MaskHead a{};
    a.images = f.number<int64_t>("images");
    f.need(a.images >= 1, "images", "must be positive");
    a.height = number_up_to(f, "height", 1 << 20), a.width = number_up_to(f, "width", 1 << 20);
    head_fields(f, a);
    a.layout = layout_fields(f, number_up_to(f, "tokens", 1 << 24), 4 * a.middle);
    a.prepared = prepared_field(f, a.layout, a.images, a.height * a.width);
    a.low_rank = f.array("low_rank", "prompts state");
    f.need(is_product(f.size("state"), {a.layout.prompt_rows(), a.layout.up + padded(a.height * a.width)}), "low_rank",
           "must be of these tokens");
    need_aligned(f, "low_rank", a.low_rank);
    a.precision = f.precision();
    f.run(mask_head, a);
  });
  // MLP k: `layers` pairs of weight and bias, applied to token rows[k] of every prompt.
  define(m, "token_mlps", [](Fields& f) {
    const float* tokens = f.array("tokens", "prompts tokens channels");
    const int64_t prompts = f.size("prompts"), count = f.size("tokens"), channels = f.size("channels");
    const auto rows = f.number<std::vector<int64_t>>("rows");
    const std::vector<Array> outs = f.list("outs", true);
    const int64_t layers = number_up_to(f, "layers", 1 << 10);
    f.need(outs.size() == rows.size(), "outs", "must hold one array for each row");
    Weights w(f, "weights");
    std::vector<Mlp> all;
    std::vector<std::vector<Linear>> weights(rows.size());
    std::vector<std::vector<int64_t>> widths(rows.size(), {channels});
    for (size_t k = 0; k < rows.size(); ++k) {
      f.need(rows[k] >= 0 && rows[k] < count, "rows", "must be rows of the tokens");
      for (int64_t n = 0; n < layers; ++n) {
        const int64_t width = w.rows();
        f.need(widths[k][n] % 16 == 0, "weights", "must have a multiple of 16 columns");
        weights[k].push_back(w.linear(width, widths[k][n])), widths[k].push_back(width);
      }
      const Array& out = outs[k];
      f.need(out.axes == 2 && out.shape[0] == prompts && out.shape[1] == widths[k][layers] && out.writeable, "outs",
             "must hold writeable arrays, prompts x width of the last layer");
      all.push_back({prompts, layers, tokens + rows[k] * channels, count * channels, weights[k].data(),
                     widths[k].data(), reinterpret_cast<float*>(out.data)});
    }
    w.done();
    f.run(run_mlps, all.data(), static_cast<int64_t>(all.size()), f.threads());
  });
}
