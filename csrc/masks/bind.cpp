#include "bind.h"

#include <pybind11/stl.h>

#include <vector>

#include "decoder/low_rank_bind.h"
#include "decoder/head.h"
#include "decoder/mlp.h"
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
                              &a.bias2, &a.vectors, &a.detail1, &a.detail2,     &a.low_rank};
    for (int k = 0; k < 11; ++k) *arrays[k] = floats(addresses[k]);
    if (a.images < 1 || a.prompts % a.images) throw py::value_error("prompts must be a multiple of images");
    a.prepared = floats(addresses[11]);
    a.out = out_floats(addresses[12].cast<std::uintptr_t>());
    if (!layout.empty()) a.layout = low_rank_layout(layout);
    a.eps = eps, a.precision = static_cast<Precision>(precision), a.threads = threads;
    py::gil_scoped_release nogil;
    mask_head(a);
  });
  // (address of x, its row, widths, addresses of weights and biases, address of out) for each MLP
  m.def("run_mlps", [](const py::list& mlps, int64_t prompts, int threads) {
    std::vector<Mlp> all;
    std::vector<std::vector<Linear>> weights(mlps.size());
    std::vector<std::vector<int64_t>> widths(mlps.size());
    for (size_t k = 0; k < mlps.size(); ++k) {
      const py::tuple f = mlps[k];
      widths[k] = f[2].cast<std::vector<int64_t>>();
      const py::tuple arrays = f[3];
      for (size_t n = 0; n + 1 < arrays.size(); n += 2)
        weights[k].push_back({floats(arrays[n]), floats(arrays[n + 1])});
      const int64_t layers = static_cast<int64_t>(weights[k].size());
      all.push_back({prompts, layers, floats(f[0]), f[1].cast<int64_t>(), weights[k].data(), widths[k].data(),
                     out_floats(f[4].cast<std::uintptr_t>())});
    }
    py::gil_scoped_release nogil;
    run_mlps(all.data(), static_cast<int64_t>(all.size()), threads);
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
