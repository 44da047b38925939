#include "metrics/counts.h"
#include "metrics/fields.h"

using namespace fastprompt;

FASTPROMPT_BIND(metrics) {
  define(m, "overlap_counts", [](Fields& f) {
    OverlapCounts a{};
    a.pred = mask_fields(f, "masks pixels"), a.target = f.array<uint8_t>("target", "masks pixels");
    f.sizes({{"masks", &a.masks}, {"pixels", &a.pixels}});
    a.ignore = ignored_field(f), a.out = f.result<int64_t>("out", "masks 4"), a.threads = f.threads();
    f.run(overlap_counts, a);
  });
  define(m, "class_counts", [](Fields& f) {
    ClassCounts a{};
    a.bytes = f.strided("pred", "pixels").kind == Kind::i64 ? 8 : 1;
    const auto labels = [&](const char* name) {
      return a.bytes == 8 ? static_cast<const void*>(f.array<int64_t>(name, "pixels"))
                          : f.array<uint8_t>(name, "pixels");
    };
    a.pred = labels("pred"), a.target = labels("target");
    a.out = f.result<int64_t>("out", "classes 3");
    f.sizes({{"pixels", &a.pixels}, {"classes", &a.classes}});
    a.ignore = f.number<int64_t>("ignore");
    f.run(class_counts, a);
  });
  define(m, "pair_counts", [](Fields& f) {
    PairCounts a{};
    a.first = f.array<uint64_t>("first", "rows words"), a.second = f.array<uint64_t>("second", "columns words");
    f.sizes({{"rows", &a.rows}, {"columns", &a.columns}, {"words", &a.words}});
    a.out = f.result<int64_t>("out", "rows columns"), a.threads = f.threads();
    f.run(pair_counts, a);
  });
}
