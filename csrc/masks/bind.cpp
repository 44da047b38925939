#include "bind.h"

#include "attention/low_rank_bind.h"
#include "masks/head.h"
#include "masks/resize.h"

using namespace fastprompt;

namespace {

// (outputs, taps, address of int32 indices, address of float32 weights)
Resizing taps(const py::tuple& t) {
  return {t[0].cast<int64_t>(), t[1].cast<int64_t>(), reinterpret_cast<const int32_t*>(t[2].cast<std::uintptr_t>()),
          reinterpret_cast<const float*>(t[3].cast<std::uintptr_t>())};
}

}  // namespace

FASTPROMPT_BIND(masks) {
  // The fields of MaskHead in their order, up to eps.
  m.def("mask_head", [](const py::tuple& sizes, const py::tuple& addresses, float eps, const py::tuple& layout,
                        int precision, int threads) {
    MaskHead a{};
    int64_t* numbers[] = {&a.prompts, &a.masks, &a.height, &a.width, &a.channels, &a.middle, &a.depth, &a.images};
    for (int k = 0; k < 8; ++k) *numbers[k] = sizes[k].cast<int64_t>();
    const float** arrays[] = {&a.image, &a.weight1, &a.bias1,   &a.norm_weight, &a.norm_bias, &a.weight2,
                              &a.bias2, &a.vectors, &a.detail1, &a.detail2,     &a.prepared,  &a.low_rank};
    for (int k = 0; k < 12; ++k) *arrays[k] = floats(addresses[k]);
    a.out = out_floats(addresses[12].cast<std::uintptr_t>());
    if (!layout.empty()) a.layout = low_rank_layout(layout);
    a.eps = eps, a.precision = static_cast<Precision>(precision), a.threads = threads;
    py::gil_scoped_release nogil;
    mask_head(a);
  });
  m.def("resize_masks",
        [](const py::tuple& sizes, std::uintptr_t logits, const py::tuple& rows, const py::tuple& columns,
           float threshold, float offset, int kind, std::uintptr_t out, std::uintptr_t facts, int threads) {
          ResizeMasks a{};
          a.masks = sizes[0].cast<int64_t>(), a.height = sizes[1].cast<int64_t>(), a.width = sizes[2].cast<int64_t>();
          a.logits = reinterpret_cast<const float*>(logits);
          a.rows = taps(rows), a.columns = taps(columns);
          a.threshold = threshold, a.offset = offset;
          a.kind = static_cast<MaskKind>(kind);
          a.out = reinterpret_cast<void*>(out), a.facts = reinterpret_cast<MaskFacts*>(facts);
          a.threads = threads;
          py::gil_scoped_release nogil;
          resize_masks(a);
        });
}
