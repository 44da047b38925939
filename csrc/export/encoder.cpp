// Layers of image encoders of an exported model.
#include "encoder/relative.h"
#include "export/node.h"

namespace fastprompt {
namespace {

using Shapes = std::vector<Sizes>;

void relative(Node& node) {
  const Sizes q = node.input(0).shape, size = node.attributes.sizes("size", 2);
  const Sizes window = node.attributes.sizes("window", 2);
  need(q.size() == 4, "q must be (B, N, heads, width)");
  need(node.input(1).shape == q && node.input(2).shape == q, "k and v must have the shape of q");
  RelativeAttention a{};
  a.images = q[0], a.tokens = q[1], a.heads = q[2], a.width = q[3], a.height = size[0], a.columns = size[1];
  need(a.tokens == a.height * a.columns, "q must hold the tokens of the grid");
  need(a.width > 0 && a.width % 16 == 0,
       "the width of a head must be a multiple of 16 for the kernel: export with flavor='inlined'");
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

FASTPROMPT_NODES(encoder){
    {"RelativePositionAttention", "TTTTTTT", "T", "size:I window:I scale:f", relative,
     [](const Known& k) { return Shapes{k.axes(0, {0, 1, 2, 3})}; }},
};

}  // namespace fastprompt
