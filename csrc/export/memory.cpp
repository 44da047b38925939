// Memory reads of an exported model.
#include "export/node.h"
#include "memory/read.h"

namespace fastprompt {
namespace {

using Shapes = std::vector<Sizes>;

void memory(Node& node) {
  const Sizes q = node.input(0).shape, k = node.input(1).shape, v = node.input(2).shape;
  need(q.size() == 4 && k.size() == 4 && v.size() == 4, "q, k and v must be (B, N, heads, width)");
  need(k == Sizes{q[0], k[1], q[2], q[3]} && v == Sizes{q[0], k[1], q[2], v[3]} && k[1] > 0,
       "k and v must have the images, heads and widths of q, and keys");
  need(q[3] > 0 && v[3] > 0, "q and v must have a width");
  MemoryRead a{};
  a.images = q[0], a.queries = q[1], a.heads = q[2], a.width = q[3], a.keys = k[1], a.depth = v[3];
  a.query = node.floats(0), a.key = node.floats(1), a.value = node.floats(2);
  a.scale = node.attributes.floats.at("scale"), a.threads = node.threads;
  a.out = node.float_output(0, {q[0], q[1], q[2], v[3]}), a.log_weight = node.float_output(1, {q[0], q[2], q[1]});
  if (product({a.images, a.queries, a.heads})) memory_read(a);
}

Shapes memory_shapes(const Known& k) {
  return {{k.axis(0, 0), k.axis(0, 1), k.axis(0, 2), k.axis(2, 3)}, k.axes(0, {0, 2, 1})};
}

}  // namespace

FASTPROMPT_NODES(memory){
    {"MemoryRead", "TTT", "TT", "scale:f", memory, memory_shapes},
};

}  // namespace fastprompt
