#include "bind.h"

#include "clicks/next.h"

using namespace fastprompt;

FASTPROMPT_BIND(clicks) {
  m.attr("largest_click_side") = kLargestSide;
  // sizes: (images, clicks, height, width)
  m.def("next_click", [](std::uintptr_t pred, int dtype, float threshold, std::uintptr_t target, int ignore,
                         std::uintptr_t clicked, const py::tuple& sizes, std::uintptr_t out, int threads) {
    NextClick a{};
    a.pred = {reinterpret_cast<const void*>(pred), static_cast<DType>(dtype), threshold};
    a.target = reinterpret_cast<const uint8_t*>(target), a.ignore = ignore;
    a.clicked = reinterpret_cast<const int32_t*>(clicked);
    int64_t* fields[] = {&a.images, &a.clicks, &a.height, &a.width};
    for (int k = 0; k < 4; ++k) *fields[k] = sizes[k].cast<int64_t>();
    a.out = reinterpret_cast<int64_t*>(out), a.threads = threads;
    py::gil_scoped_release nogil;
    next_click(a);
  });
}
