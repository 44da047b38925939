#include <algorithm>

#include "clicks/next.h"
#include "metrics/fields.h"

using namespace fastprompt;

FASTPROMPT_BIND(clicks) {
  m.attr("largest_click_side") = kLargestSide;
  define(m, "next_click", [](Fields& f) {
    NextClick a{};
    a.pred = mask_fields(f, "images height width"), a.target = f.array<uint8_t>("target", "images height width");
    a.clicked = f.array<int32_t>("clicked", "images clicks 2");
    f.sizes({{"images", &a.images}, {"clicks", &a.clicks}, {"height", &a.height}, {"width", &a.width}});
    f.need(std::max(a.height, a.width) <= kLargestSide, "pred", "must have at most 32766 pixels on a side");
    a.ignore = ignored_field(f), a.out = f.result<int64_t>("out", "images 4"), a.threads = f.threads();
    f.run(next_click, a);
  });
}
