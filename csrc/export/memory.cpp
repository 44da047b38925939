// Memory reads of an exported model.
#include <cmath>

#include "encoder/layer.h"
#include "export/node.h"
#include "memory/projected.h"
#include "memory/read.h"

namespace fastprompt {
namespace {

using Shapes = std::vector<Sizes>;

MemoryRead read_of(Node& node) {
  const Sizes q = node.input(0).shape, k = node.input(1).shape, v = node.input(2).shape;
  need(q.size() == 4 && k.size() == 4 && v.size() == 4, "q, k and v must be (B, N, heads, width)");
  need(k == Sizes{q[0], k[1], q[2], q[3]} && v == Sizes{q[0], k[1], q[2], v[3]} && k[1] > 0,
       "k and v must have the images, heads and widths of q, and keys");
  need(q[3] > 0 && v[3] > 0, "q and v must have a width");
  MemoryRead a{};
  a.images = q[0], a.queries = q[1], a.heads = q[2], a.width = q[3], a.keys = k[1], a.depth = v[3];
  a.query = node.floats(0), a.key = node.floats(1), a.value = node.floats(2);
  a.scale = node.attributes.floats.at("scale"), a.threads = node.threads;
  need(std::isfinite(a.scale), "scale must be finite");
  a.out = node.float_output(0, {q[0], q[1], q[2], v[3]});
  return a;
}

void memory(Node& node) {
  MemoryRead a = read_of(node);
  a.log_weight = node.float_output(1, {a.images, a.heads, a.queries});
  if (product({a.images, a.queries, a.heads})) memory_read(a);
}

struct Tables {
  const float *cos, *sin, *key_cos, *key_sin;
  int64_t positions, unturned;
};

// From input `n` on: cosines and sines of queries and of the positions of a frame, and how many keys are not turned.
Tables tables(Node& node, size_t n, int64_t queries, int64_t keys, int64_t width) {
  const Sizes frame = node.input(n + 2).shape;
  need(width % 2 == 0, "queries must have an even width");
  need(node.input(n).shape == Sizes{queries, width} && node.input(n + 1).shape == Sizes{queries, width},
       "cos and sin must be (queries, width)");
  need(frame.size() == 2 && frame[1] == width && node.input(n + 3).shape == frame,
       "key_cos and key_sin must be (positions, width)");
  need(node.input(n + 4).count() == 1, "unturned must be one number");
  const int64_t unturned = *node.indices(n + 4);
  need(unturned >= 0 && unturned <= keys, "unturned must be between 0 and the number of keys");
  need(unturned == keys || (frame[0] > 0 && (keys - unturned) % frame[0] == 0),
       "unturned must leave a multiple of the rows of key_cos");
  return {node.floats(n), node.floats(n + 1), node.floats(n + 2), node.floats(n + 3), frame[0], unturned};
}

void turned(Node& node) {
  MemoryRead a = read_of(node);
  const Tables t = tables(node, 3, a.queries, a.keys, a.width);
  a.cos = t.cos, a.sin = t.sin, a.key_cos = t.key_cos, a.key_sin = t.key_sin;
  a.positions = t.positions, a.unturned = t.unturned;
  if (product({a.images, a.queries, a.heads})) memory_read(a);
}

void projected(Node& node) {
  const Sizes q = node.input(0).shape, source = node.input(1).shape, size = node.attributes.sizes("size", 2);
  need(q.size() == 3 && source.size() == 3 && source[0] == q[0], "q and source must be (B, N, width), of equal B");
  need(node.input(2).shape == source && source[1] > 0, "value must have the shape of source, and keys");
  ProjectedRead a{};
  a.images = q[0], a.queries = q[1], a.width = q[2], a.keys = source[1], a.depth = source[2];
  need(a.width > 0 && a.width % (2 * kChannelUnit) == 0 && a.depth > 0 && a.depth % kChannelUnit == 0,
       "the widths of q and source must be multiples of 32 and 16 for the kernel: export with flavor='inlined'");
  need(node.input(3).shape == Sizes{a.width, a.depth} && node.input(4).count() == a.width,
       "weight must be (width, depth), bias (width)");
  const Tables t = tables(node, 5, a.queries, a.keys, a.width);
  need(size[1] > 0 ? t.positions % size[1] == 0 && t.positions / size[1] == size[0] : t.positions == 0,
       "size must be rows and columns of the positions of key_cos");
  a.query = node.floats(0), a.source = node.floats(1), a.value = node.floats(2);
  a.weight = node.floats(3), a.bias = node.floats(4);
  a.cos = t.cos, a.sin = t.sin, a.key_cos = t.key_cos, a.key_sin = t.key_sin;
  a.rows = size[0], a.columns = size[1], a.unturned = t.unturned;
  a.scale = node.attributes.floats.at("scale"), a.precision = Precision::highest, a.threads = node.threads;
  need(std::isfinite(a.scale), "scale must be finite");
  a.out = node.float_output(0, {a.images, a.queries, a.depth});
  if (a.images * a.queries) projected_read(a);
}

Shapes memory_shapes(const Known& k) {
  return {{k.axis(0, 0), k.axis(0, 1), k.axis(0, 2), k.axis(2, 3)}, k.axes(0, {0, 2, 1})};
}

}  // namespace

FASTPROMPT_NODES(memory){
    {"MemoryRead", "TTT", "TT", "scale:f", memory, memory_shapes},
    {"ProjectedMemoryRead", "TTTTTTTTTi", "T", "size:I scale:f", projected,
     [](const Known& k) { return Shapes{{k.axis(0, 0), k.axis(0, 1), k.axis(1, 2)}}; }},
    {"TurnedMemoryRead", "TTTTTTTi", "T", "scale:f", turned,
     [](const Known& k) { return Shapes{memory_shapes(k)[0]}; }},
};

}  // namespace fastprompt
