// SAM's mask decoder of an exported model: the transformer alone, with the MLPs and the mask head behind it, or the
// head.
#include <algorithm>

#include "common/parallel.h"
#include "decoder/head.h"
#include "decoder/low_rank.h"
#include "decoder/mlp.h"
#include "export/two_way.h"

namespace fastprompt {
namespace {

void transformer(Node& node) {
  Transformer t(node, 0, 2, 3);
  TwoWay& a = t.call;
  need(node.inputs() == 3 + t.weights(), "wrong number of weights for the depth");
  need(node.input(1).count() == a.channels * a.pixels, "position must be (1, C, H, W)");
  const Sizes image = node.input(0).shape;
  a.prompt_out = node.float_output(0, node.input(2).shape);
  a.image_out = node.float_output(1, {a.prompts, a.channels, image[2], image[3]});
  if (product({a.prompts, a.tokens, a.pixels}) > 0) run_two_way(node, t, node.floats(0), node.floats(1));
}

// ---------------------------------------------------------------- with all that follows

constexpr size_t kImage = 0, kDense = 1, kPosition = 2, kPrompt = 3, kFirst = 4;

// The numbers of a node MaskDecoder.
class Decoder {
 public:
  explicit Decoder(Node& node) : node_(node), t_(node, kImage, kPrompt, kFirst) {
    const Sizes image = node.input(kImage).shape;
    need(node.input(kPosition).count() == t_.call.channels * t_.call.pixels, "position must be (1, C, H, W)");
    head_.height = image[2], head_.width = image[3];
    read_head(kFirst + t_.weights());
    read_mlps(kFirst + t_.weights() + 8);
    read_dense();
  }

  void run() {
    TwoWay& a = t_.call;
    a.prompt_out = node_.float_output(0, node_.input(kPrompt).shape);
    head_.out = node_.float_output(1, {a.prompts, head_.masks, 4 * head_.height, 4 * head_.width});
    if (product({a.prompts, a.tokens, a.pixels}) == 0) return;
    one_vector_&& low_rank_pays() ? run_low_rank() : run_direct();
  }

 private:
  void read_head(size_t at) {
    const int64_t channels = t_.call.channels;
    need(node_.inputs() > at + 8, "the weights of the mask head are missing");
    const Sizes second = node_.input(at + 4).shape;
    need(second.size() == 4, "the second convolution must be (M, D, 2, 2)");
    MaskHead& h = head_;
    h.prompts = t_.call.prompts, h.channels = channels, h.middle = second[0], h.depth = second[1];
    need(node_.input(at).shape == Sizes{channels, h.middle, 2, 2} && second == Sizes{h.middle, h.depth, 2, 2},
         "convolutions must be (C, M, 2, 2) and (M, D, 2, 2)");
    Weights w{node_, at};
    h.weight1 = w.next(4 * channels * h.middle), h.bias1 = w.next(h.middle);
    h.norm_weight = w.next(h.middle), h.norm_bias = w.next(h.middle);
    h.weight2 = w.next(4 * h.middle * h.depth), h.bias2 = w.next(h.depth);
    h.detail1 = node_.floats_or_null(at + 6), h.detail2 = node_.floats_or_null(at + 7);
    h.images = t_.call.images;
    if (h.detail1 || h.detail2)
      need(node_.input(at + 6).shape == Sizes{h.images, h.middle, 2 * h.height, 2 * h.width} &&
               node_.input(at + 7).shape == Sizes{h.images, h.depth, 4 * h.height, 4 * h.width},
           "details must be (B', M, 2 H, 2 W) and (B', D, 4 H, 4 W)");
    h.eps = node_.attributes.floats.at("head_eps"), h.precision = Precision::highest, h.threads = node_.threads;
  }

  void read_mlps(size_t at) {
    const Attributes& o = node_.attributes;
    head_.masks = o.size("masks"), first_ = o.size("first");
    const int64_t layers = o.size("layers");
    need(head_.masks > 0 && layers > 0 && first_ + head_.masks <= t_.call.tokens,
         "the tokens of the masks must lie in the prompt");
    need(node_.inputs() == at + 2 * static_cast<size_t>(layers * head_.masks), "wrong number of weights of the MLPs");
    for (int64_t m = 0; m < head_.masks; ++m) {
      std::vector<int64_t> widths{t_.call.channels};
      std::vector<Linear> weights;
      for (int64_t n = 0; n < layers; ++n, at += 2) {
        const Sizes shape = node_.input(at).shape;
        need(shape.size() == 2 && shape[1] == widths.back() && widths.back() % 16 == 0 &&
                 node_.input(at + 1).count() == shape[0],
             "an MLP must be of linear layers whose inputs are multiples of 16: export with flavor='inlined'");
        widths.push_back(shape[0]);
        const float* weight = node_.floats(at);
        weights.push_back({weight, node_.floats(at + 1)});
      }
      need(widths.back() == head_.depth, "an MLP must give as many numbers as the mask head has channels");
      widths_.push_back(widths), mlps_.push_back(weights);
    }
  }

  // (1, B' or B, C, 1 or H, 1 or W): one vector for all pixels leaves the image for all prompts to share.
  void read_dense() {
    const TwoWay& a = t_.call;
    const Sizes shape = node_.input(kDense).shape, image = node_.input(kImage).shape;
    need(shape.size() == 4 && shape[0] > 0 && shape[1] == a.channels, "dense must be (1 or B, C, H, W)");
    dense_ = node_.floats(kDense), dense_images_ = shape[0], dense_pixels_ = shape[2] * shape[3];
    need(dense_pixels_ == 1 || (shape[2] == image[2] && shape[3] == image[3]), "dense must have the size of the image");
    need(a.prompts % dense_images_ == 0 && (dense_images_ % a.images == 0 || dense_images_ == 1),
         "dense must be of all prompts, of each image or of each prompt");
    one_vector_ = true;
    for (int64_t row = 0; one_vector_ && row < dense_images_ * a.channels; ++row) {
      const float first = dense_[row % a.channels * dense_pixels_], *values = dense_ + row * dense_pixels_;
      one_vector_ = std::all_of(values, values + dense_pixels_, [&](float x) { return x == first; });
    }
    if (dense_images_ > 1 && one_vector_) dense_images_ = 1;
  }

  // image + dense, `images` of them.
  std::unique_ptr<void, void (*)(void*)> summed(int64_t images) {
    const TwoWay& a = t_.call;
    auto room = aligned(product({sizeof(float), images, a.channels, a.pixels}));
    float* out = static_cast<float*>(room.get());
    const float* from = node_.floats(kImage);
    parallel_for(a.threads, images * a.channels, [&](int64_t row) {
      const int64_t k = row / a.channels, c = row % a.channels;
      const float* x = from + (k * a.images / images * a.channels + c) * a.pixels;
      const float* d = dense_ + (k * dense_images_ / images * a.channels + c) * dense_pixels_;
      for (int64_t p = 0; p < a.pixels; ++p) out[row * a.pixels + p] = x[p] + d[dense_pixels_ == 1 ? 0 : p];
    });
    return room;
  }

  // Mask prompts: every prompt has an image of its own, and it is new at every call.
  void run_direct() {
    TwoWay& a = t_.call;
    const int64_t images = std::max(a.images, dense_images_), own = t_.inner(), channels = a.channels;
    const auto image = summed(images);
    a.images = images;
    const auto attended = aligned(product({sizeof(float), a.prompts, channels, a.pixels}));
    a.image_out = static_cast<float*>(attended.get());
    if (one_vector_) {
      run_two_way(node_, t_, static_cast<const float*>(image.get()), node_.floats(kPosition));
    } else {
      const TwoWayLayer& l = t_.layers[0];
      const auto rows = aligned(product({sizeof(float), images, padded_tokens(a.pixels), 2 * channels + 3 * own}));
      two_way_prepare({images, channels, a.pixels, own, static_cast<const float*>(image.get()), node_.floats(kPosition),
                       l.to_image.key, l.to_image.value, l.to_prompt.query, static_cast<float*>(rows.get()),
                       a.threads});
      a.prepared = rows.get();
      two_way(a);
    }
    head_.image = a.image_out;
    finish();
  }

  LowRankLayout layout() const {
    const TwoWay& a = t_.call;
    return {a.tokens, a.heads, a.width, a.depth, 4 * head_.middle, false};
  }

  // Whether it takes fewer products of an image token; for SAM it does up to some 20 prompt tokens.
  bool low_rank_pays() const {
    const LowRankLayout l = layout();
    const int64_t inner = l.inner(), rows = l.heads * l.tokens, channels = t_.call.channels;
    const int64_t attention = std::min(2 * rows * channels, 2 * inner * (channels + l.tokens));
    const int64_t direct = inner * l.tokens + rows * channels + (2 * l.depth - 1) * attention + l.up * channels;
    int64_t low = l.up * l.rank(l.depth);
    for (int64_t n = 1; n <= l.depth; ++n) {
      const int64_t before = l.rank(n - 1), rank = l.rank(n);
      low += (n + 3) * inner * l.tokens + (n > 1 ? rows * before : 0) + rank * rank / 2 + 2 * rows * rank;
    }
    return low < direct && l.up % 16 == 0;
  }

  // All that an image's part is made of.
  std::vector<Part> parts() {
    const TwoWay& a = t_.call;
    const int64_t channels = a.channels, inner = t_.inner();
    std::vector<Part> found{{node_.floats(kImage), a.images * channels * a.pixels},
                            {node_.floats(kPosition), channels * a.pixels},
                            {head_.weight1, 4 * channels * head_.middle}};
    for (int64_t c = 0; c < channels; ++c) found.push_back({dense_ + c * dense_pixels_, 1});
    const auto attention = [&](const AttentionWeights& w) {
      for (const Linear& x : {w.query, w.key, w.value})
        found.push_back({x.weight, inner * channels}), found.push_back({x.bias, inner});
      found.push_back({w.out.weight, inner * channels}), found.push_back({w.out.bias, channels});
    };
    for (const TwoWayLayer& l : t_.layers) {
      attention(l.to_image), attention(l.to_prompt);
      found.push_back({l.norm4.weight, channels}), found.push_back({l.norm4.bias, channels});
    }
    attention(a.final);
    return found;
  }

  void run_low_rank() {
    TwoWay& a = t_.call;
    const LowRankLayout l = layout();
    const size_t bytes = product({sizeof(float), a.images, padded_tokens(a.pixels), l.prepared_rows()});
    const auto rows = prepared(node_, parts(), bytes, [&](void* out) {
      const auto image = summed(a.images);
      low_rank_prepare({a.images, a.channels, a.pixels, l, static_cast<const float*>(image.get()),
                        node_.floats(kPosition), a.layers, a.final, head_.weight1, out, a.threads});
    });
    const auto state = aligned(product({sizeof(float), a.prompts, l.prompt_rows(), l.up + padded_tokens(a.pixels)}));
    a.prepared = rows.get(), a.image_out = static_cast<float*>(state.get());
    low_rank({a, l, head_.weight1, nullptr, false});
    head_.prepared = rows.get(), head_.low_rank = a.image_out, head_.layout = l;
    finish();
  }

  void finish() {
    const TwoWay& a = t_.call;
    std::vector<float> vectors(product({a.prompts, head_.masks, head_.depth})), each(vectors.size());
    std::vector<Mlp> mlps;
    for (int64_t m = 0; m < head_.masks; ++m) {
      const float* x = a.prompt_out + (first_ + m) * a.channels;
      mlps.push_back({a.prompts, static_cast<int64_t>(mlps_[m].size()), x, a.tokens * a.channels, mlps_[m].data(),
                      widths_[m].data(), each.data() + m * a.prompts * head_.depth});
    }
    run_mlps(mlps.data(), head_.masks, node_.threads);
    for (int64_t m = 0; m < head_.masks; ++m)
      for (int64_t p = 0; p < a.prompts; ++p)
        std::copy_n(each.data() + (m * a.prompts + p) * head_.depth, head_.depth,
                    vectors.data() + (p * head_.masks + m) * head_.depth);
    head_.vectors = vectors.data();
    mask_head(head_);
  }

  Node& node_;
  Transformer t_;
  MaskHead head_{};
  int64_t first_ = 0;
  std::vector<std::vector<int64_t>> widths_;
  std::vector<std::vector<Linear>> mlps_;
  const float* dense_ = nullptr;
  int64_t dense_images_ = 1, dense_pixels_ = 1;
  bool one_vector_ = false;
};

// ---------------------------------------------------------------- the mask head alone

void mask_head(Node& node) {
  const Sizes image = node.input(0).shape, vectors = node.input(1).shape, second = node.input(6).shape;
  need(image.size() == 4 && vectors.size() == 3 && second.size() == 4, "image is (B, C, H, W), vectors (B, K, D)");
  MaskHead a{};
  a.prompts = image[0], a.channels = image[1], a.height = image[2], a.width = image[3];
  a.masks = vectors[1], a.depth = vectors[2], a.middle = second[0];
  need(vectors[0] == a.prompts && node.input(2).shape == Sizes{a.channels, a.middle, 2, 2} &&
           second == Sizes{a.middle, a.depth, 2, 2},
       "weights must be (C, M, 2, 2) and (M, D, 2, 2)");
  for (size_t n : {3, 4, 5}) need(node.input(n).count() == a.middle, "bias and LayerNorm must be (M)");
  need(node.input(7).count() == a.depth, "the second bias must be (D)");
  a.image = node.floats(0), a.vectors = node.floats(1);
  a.weight1 = node.floats(2), a.bias1 = node.floats(3), a.norm_weight = node.floats(4), a.norm_bias = node.floats(5);
  a.weight2 = node.floats(6), a.bias2 = node.floats(7);
  a.detail1 = node.floats_or_null(8), a.detail2 = node.floats_or_null(9);
  a.images = 1;
  if (a.detail1 || a.detail2) {
    const Sizes d = node.input(8).shape;
    need(d.size() == 4 && d[0] > 0 && a.prompts % d[0] == 0, "details must be of equally many prompts each");
    a.images = d[0];
    need(d == Sizes{a.images, a.middle, 2 * a.height, 2 * a.width} &&
             node.input(9).shape == Sizes{a.images, a.depth, 4 * a.height, 4 * a.width},
         "details must be (B', M, 2 H, 2 W) and (B', D, 4 H, 4 W)");
  }
  a.eps = node.attributes.floats.at("eps"), a.precision = Precision::highest, a.threads = node.threads;
  a.out = node.float_output(0, {a.prompts, a.masks, 4 * a.height, 4 * a.width});
  if (product({a.prompts, a.masks, a.height, a.width}) > 0) mask_head(a);
}

// ---------------------------------------------------------------- shapes

std::vector<Sizes> transformer_shapes(const Known& k) {
  return {k.axes(2, {0, 1, 2}), {k.axis(2, 0), k.axis(0, 1), k.axis(0, 2), k.axis(0, 3)}};
}

std::vector<Sizes> decoder_shapes(const Known& k) {
  const int64_t height = k.axis(0, 2), width = k.axis(0, 3), masks = k.attributes.size("masks");
  return {k.axes(3, {0, 1, 2}), {k.axis(3, 0), masks, height < 0 ? -1 : 4 * height, width < 0 ? -1 : 4 * width}};
}

std::vector<Sizes> head_shapes(const Known& k) {
  const int64_t height = k.axis(0, 2), width = k.axis(0, 3);
  return {{k.axis(1, 0), k.axis(1, 1), height < 0 ? -1 : 4 * height, width < 0 ? -1 : 4 * width}};
}

}  // namespace

FASTPROMPT_NODES(decoder){
    {"MaskHead", "TTTTTTTTTT", "T", "eps:f", mask_head, head_shapes},
    {"TwoWayTransformer", "T+", "TT", "heads:i width:i depth:i channels:i eps:f final_eps:f", transformer,
     transformer_shapes},
    {"MaskDecoder", "T+", "TT",
     "heads:i width:i depth:i channels:i eps:f final_eps:f head_eps:f first:i masks:i layers:i",
     [](Node& node) { Decoder(node).run(); }, decoder_shapes},
};

}  // namespace fastprompt
