// Guidance maps, pooling, similarity and memory reads of an exported model.
#include "memory/read.h"
#include "export/node.h"
#include "guidance/box.h"
#include "guidance/click.h"
#include "pooling/pool.h"
#include "pooling/prior.h"
#include "pooling/similarity.h"

namespace fastprompt {
namespace {

using Shapes = std::vector<Sizes>;

Sizes image_size(const Attributes& a) {
  const Sizes& size = a.int_lists.at("size");
  need(size.size() == 2 && size[0] >= 0 && size[1] >= 0, "size must be two numbers");
  return size;
}

// ---------------------------------------------------------------- guidance

void clicks(Node& node) {
  const Sizes points = node.input(0).shape, size = image_size(node.attributes);
  const Attributes& o = node.attributes;
  need(points.size() == 3 && points[2] == 2, "points must be (B, N, 2)");
  need(node.input(1).shape == Sizes{points[0], points[1]}, "labels must be (B, N)");
  const Sizes& channels = o.int_lists.at("channels");
  const std::vector<float>& scales = o.float_lists.at("scales");
  const int64_t code = o.ints.at("code");
  need(code >= 0 && code < 4 && !scales.empty(), "code must be 0 to 3, and scales at least one number");
  ClickMaps a{};
  a.images = points[0], a.clicks = points[1], a.channels = channels.size(), a.height = size[0], a.width = size[1];
  a.points = node.floats(0), a.labels = node.indices(1), a.of_labels = channels.data();
  a.encoding = static_cast<ClickEncoding>(code), a.scales = scales.size(), a.scale = scales.data();
  a.clip = o.floats.at("clip"), a.divisor = o.floats.at("divisor"), a.missing = o.floats.at("missing");
  a.stretch = o.ints.at("stretch") != 0, a.threads = node.threads;
  a.image_stride = a.channels * a.scales * a.height * a.width;
  a.out = node.float_output(0, {a.images, a.channels * a.scales, a.height, a.width});
  if (a.images * a.image_stride) click_maps(a);
}

Shapes click_shapes(const Known& k) {
  const Sizes size = image_size(k.attributes);
  const int64_t maps = k.attributes.int_lists.at("channels").size() * k.attributes.float_lists.at("scales").size();
  return {{k.axis(0, 0), maps, size[0], size[1]}};
}

void boxes(Node& node) {
  const Sizes corners = node.input(0).shape, size = image_size(node.attributes);
  need(corners.size() == 3 && corners[2] == 4, "corners must be (B, N, 4)");
  const auto& numbers = node.attributes.floats;
  BoxMaps a{};
  a.images = corners[0], a.boxes = corners[1], a.height = size[0], a.width = size[1];
  a.corners = node.floats(0), a.distance = node.attributes.ints.at("distance") != 0;
  a.offset = numbers.at("offset"), a.low = numbers.at("low"), a.high = numbers.at("high");
  a.image_stride = a.height * a.width, a.threads = node.threads;
  a.out = node.float_output(0, {a.images, 1, a.height, a.width});
  if (a.images * a.image_stride) box_maps(a);
}

Shapes box_shapes(const Known& k) {
  const Sizes size = image_size(k.attributes);
  return {{k.axis(0, 0), 1, size[0], size[1]}};
}

// ---------------------------------------------------------------- pooling

void pool(Node& node) {
  const Sizes features = node.input(0).shape, mask = node.input(1).shape;
  const auto& numbers = node.attributes.ints;
  need(features.size() == 4 && mask.size() == 4 && mask[0] == features[0],
       "features are (B, C, h, w), mask (B, M, H, W)");
  need(features[2] * features[3] > 0 && mask[2] * mask[3] > 0, "features and mask must have pixels");
  const int64_t resize = numbers.at("resize");
  need(resize >= 0 && resize < 3, "resize must be 0, 1 or 2");
  need(resize != 2 || (mask[2] % features[2] == 0 && mask[3] % features[3] == 0),
       "mask must have a multiple of the features' size");
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
  if (a.batch * a.rows() * a.channels) masked_pool(a);
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
  if (a.batch * a.pixels) similarity(a);
}

void most_similar(Node& node) {
  Similarity a = similarity_of(node);
  a.kind = SimilarityOutput::argmax;
  a.index = node.index_output(0, {a.batch, a.pixels});
  if (a.batch * a.pixels) similarity(a);
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
  if (a.pairs * a.query_pixels) prior_mask(a);
}

// ---------------------------------------------------------------- memory

void memory(Node& node) {
  const Sizes q = node.input(0).shape, k = node.input(1).shape, v = node.input(2).shape;
  need(q.size() == 4 && k.size() == 4 && v.size() == 4, "q, k and v must be (B, N, heads, width)");
  need(k == Sizes{q[0], k[1], q[2], q[3]} && v == Sizes{q[0], k[1], q[2], v[3]} && k[1] > 0,
       "k and v must have the images, heads and widths of q, and keys");
  need(q[3] % 16 == 0 && v[3] % 16 == 0, "widths must be multiples of 16 for the kernel: export with flavor='inlined'");
  MemoryRead a{};
  a.images = q[0], a.queries = q[1], a.heads = q[2], a.width = q[3], a.keys = k[1], a.depth = v[3];
  a.query = node.floats(0), a.key = node.floats(1), a.value = node.floats(2);
  a.scale = node.attributes.floats.at("scale"), a.threads = node.threads;
  a.out = node.float_output(0, {q[0], q[1], q[2], v[3]}), a.log_weight = node.float_output(1, {q[0], q[2], q[1]});
  if (a.images * a.queries * a.heads) memory_read(a);
}

Shapes memory_shapes(const Known& k) {
  return {{k.axis(0, 0), k.axis(0, 1), k.axis(0, 2), k.axis(2, 3)}, k.axes(0, {0, 2, 1})};
}

}  // namespace

const std::vector<Kernel> kMapKernels = {
    {"ClickMap", "ai", "f", "size:I channels:I code:i scales:F clip:f divisor:f stretch:i missing:f", clicks,
     click_shapes},
    {"BoxMap", "a", "f", "size:I distance:i offset:f low:f high:f", boxes, box_shapes},
    {"MaskedPool", "Ta", "T", "resize:i align_corners:i background:i hard:i threshold:f eps:f empty:f", pool,
     pool_shapes},
    {"SimilarityMap", "TT", "T", "scale:f eps:f temperature:f softmax:i sharpest:f", similarities,
     [](const Known& k) { return Shapes{{k.axis(0, 0), k.axis(1, 1), k.axis(0, 2)}}; }},
    {"SimilarityArgmax", "aa", "i", "scale:f eps:f temperature:f sharpest:f", most_similar,
     [](const Known& k) { return Shapes{k.axes(0, {0, 2})}; }},
    {"PriorSimilarity", "TTT", "T", "eps:f", prior,
     [](const Known& k) { return Shapes{{k.axis(1, 0), k.axis(0, 2)}}; }},
    {"MemoryRead", "TTT", "TT", "scale:f", memory, memory_shapes},
};

}  // namespace fastprompt
