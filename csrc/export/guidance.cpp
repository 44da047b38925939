// Guidance maps of an exported model.
#include "export/node.h"
#include "guidance/box.h"
#include "guidance/click.h"

namespace fastprompt {
namespace {

using Shapes = std::vector<Sizes>;

void clicks(Node& node) {
  const Sizes points = node.input(0).shape, size = node.attributes.sizes("size", 2);
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
  a.image_stride = product({a.channels, a.scales, a.height, a.width});
  a.out = node.float_output(0, {a.images, a.channels * a.scales, a.height, a.width});
  if (product({a.images, a.image_stride})) click_maps(a);
}

Shapes click_shapes(const Known& k) {
  const Sizes size = k.attributes.sizes("size", 2);
  const int64_t maps = k.attributes.int_lists.at("channels").size() * k.attributes.float_lists.at("scales").size();
  return {{k.axis(0, 0), maps, size[0], size[1]}};
}

void boxes(Node& node) {
  const Sizes corners = node.input(0).shape, size = node.attributes.sizes("size", 2);
  need(corners.size() == 3 && corners[2] == 4, "corners must be (B, N, 4)");
  const auto& numbers = node.attributes.floats;
  BoxMaps a{};
  a.images = corners[0], a.boxes = corners[1], a.height = size[0], a.width = size[1];
  a.corners = node.floats(0), a.distance = node.attributes.ints.at("distance") != 0;
  a.offset = numbers.at("offset"), a.low = numbers.at("low"), a.high = numbers.at("high");
  a.image_stride = a.height * a.width, a.threads = node.threads;
  a.out = node.float_output(0, {a.images, 1, a.height, a.width});
  if (product({a.images, a.image_stride})) box_maps(a);
}

Shapes box_shapes(const Known& k) {
  const Sizes size = k.attributes.sizes("size", 2);
  return {{k.axis(0, 0), 1, size[0], size[1]}};
}

}  // namespace

FASTPROMPT_NODES(guidance){
    {"ClickMap", "ai", "f", "size:I channels:I code:i scales:F clip:f divisor:f stretch:i missing:f", clicks,
     click_shapes},
    {"BoxMap", "a", "f", "size:I distance:i offset:f low:f high:f", boxes, box_shapes},
};

}  // namespace fastprompt
