// The mask operators of an exported model.
#include <algorithm>
#include <cmath>

#include "export/node.h"
#include "masks/resize.h"

namespace fastprompt {
namespace {

// One axis: to the frame, the first `crop` of that, to the outputs. A sum of at most four inputs for every output.
struct Taps {
  std::vector<int32_t> index;
  std::vector<float> weight;
  int64_t size, count;
  Resizing view() const { return {size, count, index.data(), weight.data()}; }
};

struct Pair {
  int64_t index[2];
  double weight[2];
};

Pair bilinear(int64_t inputs, int64_t outputs, int64_t n) {
  const double at = std::min(std::max((n + 0.5) * inputs / outputs - 0.5, 0.0), double(inputs - 1));
  const int64_t low = static_cast<int64_t>(std::floor(at));
  return {{low, std::min(low + 1, inputs - 1)}, {1 - (at - low), at - low}};
}

Taps taps(int64_t inputs, int64_t frame, int64_t crop, int64_t outputs) {
  const int64_t count = frame ? 4 : 2;
  Taps t{std::vector<int32_t>(count * outputs), std::vector<float>(count * outputs), outputs, count};
  for (int64_t n = 0; n < outputs; ++n) {
    const Pair outer = bilinear(frame ? crop : inputs, outputs, n);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t place = k * outputs + n;
      if (!frame) {
        t.index[place] = static_cast<int32_t>(outer.index[k]), t.weight[place] = static_cast<float>(outer.weight[k]);
        continue;
      }
      const Pair inner = bilinear(inputs, frame, outer.index[k / 2]);
      t.index[place] = static_cast<int32_t>(inner.index[k % 2]);
      t.weight[place] = static_cast<float>(outer.weight[k / 2] * inner.weight[k % 2]);
    }
  }
  return t;
}

template <bool logits>
void resize(Node& node) {
  const Sizes in = node.input(0).shape, size = node.attributes.sizes("size", 2);
  need(in.size() == 3 && in[1] > 0 && in[2] > 0 && size[0] > 0 && size[1] > 0,
       "logits must be (M, h, w) and size two positive numbers");
  const auto pair = [&](const char* name) {
    const auto found = node.attributes.int_lists.find(name);
    const bool none = found == node.attributes.int_lists.end() || found->second.empty();
    return none ? Sizes{0, 0} : node.attributes.sizes(name, 2);
  };
  const Sizes frame = pair("frame"), given = pair("crop"), crop = given[0] ? given : frame;
  for (int k : {0, 1})
    need(frame[k] >= 0 && crop[k] <= frame[k] && (frame[k] == 0 || crop[k] > 0), "crop must lie in frame");
  const Taps rows = taps(in[1], frame[0], crop[0], size[0]), columns = taps(in[2], frame[1], crop[1], size[1]);
  std::vector<MaskFacts> facts(in[0]);
  ResizeMasks a{};
  a.masks = in[0], a.height = in[1], a.width = in[2], a.logits = node.floats(0);
  a.rows = rows.view(), a.columns = columns.view();
  a.threshold = node.attributes.floats.at("threshold"), a.offset = node.attributes.floats.at("offset");
  const bool packed = !logits && node.attributes.ints.at("packed") != 0;
  a.kind = logits ? MaskKind::logits : packed ? MaskKind::bits : MaskKind::bytes;
  const Sizes shape{in[0], size[0], packed ? (size[1] + 7) / 8 : size[1]};
  Type type;
  a.out = logits ? static_cast<void*>(node.float_output(0, shape)) : node.output(0, shape, &type);
  a.facts = facts.data(), a.threads = node.threads;
  resize_masks(a);
  int64_t *area = node.index_output(1, {in[0]}), *box = node.index_output(2, {in[0], 4});
  float* stability = node.float_output(3, {in[0]});
  for (int64_t m = 0; m < in[0]; ++m) {
    const MaskFacts& f = facts[m];
    area[m] = f.area;
    box[4 * m] = f.x0, box[4 * m + 1] = f.y0, box[4 * m + 2] = f.x1, box[4 * m + 3] = f.y1;
    stability[m] = static_cast<float>(double(f.above) / double(f.below));
  }
}

// ---------------------------------------------------------------- shapes

std::vector<Sizes> resized_shapes(const Known& k) {
  const Sizes& size = k.attributes.sizes("size", 2);
  const auto packed = k.attributes.ints.find("packed");
  const bool bits = packed != k.attributes.ints.end() && packed->second;
  const int64_t count = k.axis(0, 0);
  return {{count, size[0], bits ? (size[1] + 7) / 8 : size[1]}, {count}, {count, 4}, {count}};
}

}  // namespace

FASTPROMPT_NODES(masks){
    {"ResizeMasks", "a", "uiif", "size:I frame:I crop:I threshold:f offset:f packed:i", resize<false>, resized_shapes},
    {"ResizeLogits", "a", "fiif", "size:I frame:I crop:I threshold:f offset:f", resize<true>, resized_shapes},
};

}  // namespace fastprompt
