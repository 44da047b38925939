// Pooling and similarity of an exported model.
#include "export/node.h"
#include "pooling/pool.h"
#include "pooling/prior.h"
#include "pooling/similarity.h"

namespace fastprompt {
namespace {

using Shapes = std::vector<Sizes>;

// ---------------------------------------------------------------- pooling

void pool(Node& node) {
  const Sizes features = node.input(0).shape, mask = node.input(1).shape;
  const auto& numbers = node.attributes.ints;
  need(features.size() == 4 && mask.size() == 4 && mask[0] == features[0],
       "features are (B, C, h, w), mask (B, M, H, W)");
  const int64_t resize = numbers.at("resize");
  need(resize >= 0 && resize < 3, "resize must be 0, 1 or 2");
  MaskedPool a{};
  a.batch = features[0], a.channels = features[1], a.height = features[2], a.width = features[3];
  a.masks = mask[1], a.mask_height = mask[2], a.mask_width = mask[3], a.features = node.floats(0);
  const Type type = node.input(1).type;
  a.bytes = type == Type::u8 || type == Type::boolean;
  a.mask = a.bytes ? static_cast<const void*>(node.bytes(1)) : node.floats(1);
  a.resize = static_cast<PoolResize>(resize), a.align_corners = numbers.at("align_corners") != 0;
  a.background = numbers.at("background") != 0, a.hard = numbers.at("hard") != 0;
  const auto& levels = node.attributes.floats;
  a.threshold = levels.at("threshold"), a.eps = levels.at("eps"), a.empty = levels.at("empty");
  a.out = node.float_output(0, {a.batch, a.rows(), a.channels}), a.threads = node.threads;
  if (a.batch && a.rows() && a.channels) masked_pool(a);
}

Shapes pool_shapes(const Known& k) {
  const int64_t masks = k.axis(1, 1), each = k.attributes.ints.at("background") ? 2 : 1;
  return {{k.axis(0, 0), masks < 0 ? -1 : each * masks, k.axis(0, 1)}};
}

// ---------------------------------------------------------------- similarity

Similarity similarity_of(Node& node) {
  const Sizes features = node.input(0).shape, rows = node.input(1).shape;
  need(features.size() == 3 && rows.size() == 3 && rows[2] == features[1] && rows[1] > 0 &&
           (rows[0] == 1 || rows[0] == features[0]),
       "features are (B, C, N), rows (B or 1, K, C)");
  const auto& numbers = node.attributes.floats;
  Similarity a{};
  a.batch = features[0], a.channels = features[1], a.pixels = features[2], a.rows = rows[1], a.row_images = rows[0];
  a.features = node.floats(0), a.row = node.floats(1);
  a.scale = numbers.at("scale"), a.eps = numbers.at("eps"), a.temperature = numbers.at("temperature");
  a.sharpest = numbers.at("sharpest"), a.precision = Precision::highest, a.threads = node.threads;
  return a;
}

void similarities(Node& node) {
  Similarity a = similarity_of(node);
  a.kind = node.attributes.ints.at("softmax") ? SimilarityOutput::softmax : SimilarityOutput::cosines;
  a.out = node.float_output(0, {a.batch, a.rows, a.pixels});
  if (a.batch && a.pixels) similarity(a);
}

void most_similar(Node& node) {
  Similarity a = similarity_of(node);
  a.kind = SimilarityOutput::argmax;
  a.index = node.index_output(0, {a.batch, a.pixels});
  if (a.batch && a.pixels) similarity(a);
}

void prior(Node& node) {
  const Sizes query = node.input(0).shape, support = node.input(1).shape;
  need(query.size() == 3 && support.size() == 3 && query[1] == support[1] && query[0] > 0 && support[0] % query[0] == 0,
       "query is (B, C, N), support (B K, C, M)");
  need(node.input(2).shape == Sizes{support[0], support[2]}, "mask must be (B K, M)");
  PriorMask a{};
  a.pairs = support[0], a.shots = support[0] / query[0], a.channels = query[1];
  a.query_pixels = query[2], a.support_pixels = support[2];
  a.query = node.floats(0), a.support = node.floats(1), a.mask = node.floats(2);
  a.eps = node.attributes.floats.at("eps"), a.precision = Precision::highest, a.threads = node.threads;
  need(a.support_pixels > 0, "support must have pixels");
  a.out = node.float_output(0, {a.pairs, a.query_pixels});
  if (a.pairs && a.query_pixels) prior_mask(a);
}

}  // namespace

FASTPROMPT_NODES(pooling){
    {"MaskedPool", "Ta", "T", "resize:i align_corners:i background:i hard:i threshold:f eps:f empty:f", pool,
     pool_shapes},
    {"SimilarityMap", "TT", "T", "scale:f eps:f temperature:f sharpest:f softmax:i", similarities,
     [](const Known& k) { return Shapes{{k.axis(0, 0), k.axis(1, 1), k.axis(0, 2)}}; }},
    {"SimilarityArgmax", "aa", "i", "scale:f eps:f temperature:f sharpest:f", most_similar,
     [](const Known& k) { return Shapes{k.axes(0, {0, 2})}; }},
    {"PriorSimilarity", "TTT", "T", "eps:f", prior,
     [](const Known& k) { return Shapes{{k.axis(1, 0), k.axis(0, 2)}}; }},
};

}  // namespace fastprompt
