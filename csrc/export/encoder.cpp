// Layers of image encoders of an exported model.
#include <algorithm>

#include "encoder/relative.h"
#include "export/node.h"

namespace fastprompt {
namespace {

using Shapes = std::vector<Sizes>;

// Inputs 0 to 2 are q, k and v; `pad`: the place of pad_key, before that of pad_value.
RelativeAttention on_grid(Node& node, size_t pad) {
  const Sizes q = node.input(0).shape, size = node.attributes.sizes("size", 2);
  const Sizes window = node.attributes.sizes("window", 2);
  need(q.size() == 4, "q must be (B, N, heads, width)");
  need(node.input(1).shape == q && node.input(2).shape == q, "k and v must have the shape of q");
  RelativeAttention a{};
  a.images = q[0], a.tokens = q[1], a.heads = q[2], a.width = q[3], a.height = size[0], a.columns = size[1];
  need(a.tokens == a.height * a.columns, "q must hold the tokens of the grid");
  if (window != size) a.window_height = window[0], a.window_columns = window[1];
  need(window[0] > 0 && window[1] > 0 && window[0] < 32768 && window[1] < 32768, "windows must be positive");
  const TokenRows rows{nullptr, a.tokens * a.heads * a.width, a.heads * a.width, a.width};
  a.query = a.key = a.value = rows;
  a.query.data = node.floats(0), a.key.data = node.floats(1), a.value.data = node.floats(2);
  const bool pads = a.window_height && (size[0] % window[0] || size[1] % window[1]);
  need(!pads || (node.input(pad).count() == a.heads * a.width && node.input(pad + 1).count() == a.heads * a.width),
       "pad_key and pad_value must be (heads, width) where windows do not divide the grid");
  if (pads) a.pad_key = node.floats(pad), a.pad_value = node.floats(pad + 1);
  a.scale = node.attributes.floats.at("scale");
  a.precision = Precision::highest, a.threads = node.threads;
  return a;
}

void relative(Node& node) {
  RelativeAttention a = on_grid(node, 5);
  const Sizes& window = node.attributes.sizes("window", 2);
  need(a.width > 0 && a.width % 16 == 0,
       "the width of a head must be a multiple of 16 for the kernel: export with flavor='inlined'");
  need(node.input(3).count() == (2 * window[0] - 1) * a.width && node.input(4).count() == (2 * window[1] - 1) * a.width,
       "rel_h and rel_w must be (2 size - 1, width)");
  a.rel_h = node.floats(3), a.rel_w = node.floats(4);
  a.out = node.float_output(0, node.input(0).shape);
  if (a.images * a.tokens * a.heads > 0) relative_attention(a);
}

void grid(Node& node) {
  RelativeAttention a = on_grid(node, 3);
  const Sizes size = node.attributes.sizes("size", 2), window = node.attributes.sizes("window", 2);
  a.pool = node.attributes.size("pool");
  need(a.width > 0, "q must have a width");
  need(a.pool > 0, "pool must be positive");
  for (const Sizes& sides : {size, window})
    need(sides[0] % a.pool == 0 && sides[1] % a.pool == 0, "pool must divide size and window");
  a.out = node.float_output(0, {a.images, a.out_tokens(), a.heads, a.width});
  if (a.images * a.tokens * a.heads > 0) relative_attention(a);
}

Shapes grid_shapes(const Known& k) {
  Sizes found = k.axes(0, {0, 1, 2, 3});
  const int64_t pool = std::max<int64_t>(1, k.attributes.size("pool"));
  if (found[1] > 0) found[1] = found[1] / pool / pool;
  return {found};
}

}  // namespace

FASTPROMPT_NODES(encoder){
    {"GridAttention", "TTTTT", "T", "size:I window:I pool:i scale:f", grid, grid_shapes},
    {"RelativePositionAttention", "TTTTTTT", "T", "size:I window:I scale:f", relative,
     [](const Known& k) { return Shapes{k.axes(0, {0, 1, 2, 3})}; }},
};

}  // namespace fastprompt
