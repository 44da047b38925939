#include "bind.h"

#include "masks/head.h"

using namespace fastprompt;

FASTPROMPT_BIND(masks) {
  // The fields of MaskHead in their order.
  m.def("mask_head", [](const py::tuple& sizes, const py::tuple& addresses, float eps, int threads) {
    MaskHead a{};
    int64_t* numbers[] = {&a.prompts, &a.masks, &a.height, &a.width, &a.channels, &a.middle, &a.depth, &a.images};
    for (int k = 0; k < 8; ++k) *numbers[k] = sizes[k].cast<int64_t>();
    const float** arrays[] = {&a.image,   &a.weight1, &a.bias1,   &a.norm_weight, &a.norm_bias,
                              &a.weight2, &a.bias2,   &a.vectors, &a.detail1,     &a.detail2};
    for (int k = 0; k < 10; ++k) *arrays[k] = reinterpret_cast<const float*>(addresses[k].cast<std::uintptr_t>());
    a.out = reinterpret_cast<float*>(addresses[10].cast<std::uintptr_t>());
    a.eps = eps, a.threads = threads;
    py::gil_scoped_release nogil;
    mask_head(a);
  });
}
