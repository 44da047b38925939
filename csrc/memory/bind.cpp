#include "bind.h"

#include "encoder/layer.h"
#include "memory/read.h"

using namespace fastprompt;

FASTPROMPT_BIND(memory) {
  define(m, "memory_read", [](Fields& f) {
    MemoryRead a{};
    a.query = f.array("query", "images queries heads width"), a.key = f.array("key", "images keys heads width");
    a.value = f.array("value", "images keys heads depth");
    f.sizes({{"images", &a.images}, {"heads", &a.heads}, {"queries", &a.queries}, {"keys", &a.keys}});
    f.sizes({{"width", &a.width}, {"depth", &a.depth}});
    f.need(a.keys > 0, "key", "must have at least one key");
    f.need(a.width > 0 && a.width % kChannelUnit == 0, "query", "must have a width that is a multiple of 16");
    f.need(a.depth > 0 && a.depth % kChannelUnit == 0, "value", "must have a width that is a multiple of 16");
    a.scale = f.number<float>("scale");
    a.out = f.result("out", "images queries heads depth");
    a.log_weight = f.result("log_weight", "images heads queries"), a.threads = f.threads();
    f.run(memory_read, a);
  });
}
