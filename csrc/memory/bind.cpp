#include "bind.h"

#include <cmath>

#include "encoder/layer.h"
#include "memory/projected.h"
#include "memory/read.h"

using namespace fastprompt;

namespace {

// The last `unturned` keys are not turned, and the others are whole frames of `positions`.
int64_t unturned_keys(Fields& f, int64_t keys, int64_t positions) {
  const auto unturned = f.number<int64_t>("unturned");
  f.need(unturned >= 0 && unturned <= keys, "unturned", "must be between 0 and the number of keys");
  f.need(unturned == keys || (positions > 0 && (keys - unturned) % positions == 0), "unturned",
         "must leave a multiple of the rows of key_cos");
  return unturned;
}

float finite_scale(Fields& f) {
  const float scale = f.number<float>("scale");
  f.need(std::isfinite(scale), "scale", "must be finite");
  return scale;
}

}  // namespace

FASTPROMPT_BIND(memory) {
  define(m, "memory_read", [](Fields& f) {
    MemoryRead a{};
    a.query = f.array("query", "images queries heads width"), a.key = f.array("key", "images keys heads width");
    a.value = f.array("value", "images keys heads depth");
    f.sizes({{"images", &a.images}, {"heads", &a.heads}, {"queries", &a.queries}, {"keys", &a.keys}});
    f.sizes({{"width", &a.width}, {"depth", &a.depth}});
    f.need(a.keys > 0, "key", "must have at least one key");
    f.need(a.width > 0, "query", "must have a width");
    f.need(a.depth > 0, "value", "must have a width");
    a.cos = f.optional("cos", "queries width"), a.sin = f.optional("sin", "queries width");
    a.key_cos = f.optional("key_cos", "positions width"), a.key_sin = f.optional("key_sin", "positions width");
    f.need(!a.cos == !a.sin && !a.cos == !a.key_cos && !a.cos == !a.key_sin, "cos",
           "must be given with sin, key_cos and key_sin, and only with them");
    if (a.cos) {
      f.need(a.width % 2 == 0, "query", "must have an even width where it is turned");
      a.positions = f.size("positions"), a.unturned = unturned_keys(f, a.keys, a.positions);
    }
    a.scale = finite_scale(f), a.precision = f.precision();
    a.out = f.result("out", "images queries heads depth");
    if (f.given("log_weight")) a.log_weight = f.result("log_weight", "images heads queries");
    a.threads = f.threads();
    f.run(memory_read, a);
  });
  define(m, "projected_memory_read", [](Fields& f) {
    ProjectedRead a{};
    a.query = f.array("query", "images queries width");
    a.source = f.array("source", "images keys depth"), a.value = f.array("value", "images keys depth");
    a.weight = f.array("weight", "width depth"), a.bias = f.array("bias", "width");
    a.cos = f.array("cos", "queries width"), a.sin = f.array("sin", "queries width");
    a.key_cos = f.array("key_cos", "positions width"), a.key_sin = f.array("key_sin", "positions width");
    f.sizes({{"images", &a.images}, {"queries", &a.queries}, {"keys", &a.keys}, {"width", &a.width}});
    f.sizes({{"depth", &a.depth}});
    int64_t size[2];
    f.numbers("size", size);
    const int64_t positions = f.size("positions");
    const bool grid = size[1] > 0 ? positions % size[1] == 0 && positions / size[1] == size[0] : positions == 0;
    f.need(grid && size[0] >= 0 && size[1] >= 0, "size", "must be rows and columns of the positions of key_cos");
    f.need(a.keys > 0, "source", "must have at least one key");
    f.need(a.width > 0 && a.width % (2 * kChannelUnit) == 0, "query", "must have a width that is a multiple of 32");
    f.need(a.depth > 0 && a.depth % kChannelUnit == 0, "source", "must have a width that is a multiple of 16");
    a.rows = size[0], a.columns = size[1], a.unturned = unturned_keys(f, a.keys, positions);
    a.scale = finite_scale(f), a.precision = f.precision();
    a.out = f.result("out", "images queries depth"), a.threads = f.threads();
    f.run(projected_read, a);
  });
}
