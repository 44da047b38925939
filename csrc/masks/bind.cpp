#include "bind.h"

#include <string>
#include <vector>

#include "masks/resize.h"

using namespace fastprompt;

namespace {

// Of the axis "rows" or "columns", whose inputs are `inputs`.
Resizing resizing(Fields& f, const std::string& axis, int64_t inputs) {
  const std::string index = axis + "_index", weight = axis + "_weight", shape = axis + "_taps " + axis;
  Resizing r{};
  r.index = f.array<int32_t>(index.c_str(), Axes(shape.c_str()));
  r.weight = f.array(weight.c_str(), Axes(shape.c_str()));
  r.size = f.size(axis), r.count = f.size(axis + "_taps");
  f.need(r.size > 0 && r.count > 0, index.c_str(), "must not be empty");
  for (int64_t k = 0; k < r.size * r.count; ++k)
    f.need(r.index[k] >= 0 && r.index[k] < inputs, index.c_str(), "must be places in the logits");
  return r;
}

void read(Fields& f, ResizeMasks& a) {
  a.logits = f.array("logits", "masks height width");
  f.sizes({{"masks", &a.masks}, {"height", &a.height}, {"width", &a.width}});
  a.rows = resizing(f, "rows", a.height), a.columns = resizing(f, "columns", a.width);
}

}  // namespace

FASTPROMPT_BIND(masks) {
  define(m, "resize_masks", [](Fields& f) {
    ResizeMasks a{};
    read(f, a);
    a.threshold = f.number<float>("threshold"), a.offset = f.number<float>("offset");
    a.kind = f.choice<MaskKind>("kind", {"logits", "bytes", "bits"});
    const int64_t width = a.kind == MaskKind::bits ? (a.columns.size + 7) / 8 : a.columns.size;
    if (a.kind == MaskKind::logits)
      a.out = f.result("out", {a.masks, a.rows.size, width});
    else
      a.out = f.result<uint8_t>("out", {a.masks, a.rows.size, width});
    int64_t *area = f.result<int64_t>("area", "masks"), *box = f.result<int64_t>("box", "masks 4");
    float* stability = f.result("stability", "masks");
    a.threads = f.threads();
    std::vector<MaskFacts> facts(a.masks);
    a.facts = facts.data();
    f.run(resize_masks, a);
    for (const MaskFacts& x : facts) {
      *area++ = x.area;
      for (const int64_t side : {x.x0, x.y0, x.x1, x.y1}) *box++ = side;
      *stability++ = static_cast<float>(static_cast<double>(x.above) / static_cast<double>(x.below));
    }
  });
  define(m, "resize_logits", [](Fields& f) {
    ResizeMasks a{};
    read(f, a);
    a.kind = MaskKind::logits;
    a.out = f.result("out", {a.masks, a.rows.size, a.columns.size});
    a.threads = f.threads();
    f.run(resize_masks, a);
  });
}
