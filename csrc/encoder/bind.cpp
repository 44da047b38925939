#include "bind.h"

#include "encoder/layer.h"

using namespace fastprompt;

namespace {

// (address of weight, of bias, rows, depth)
Matrix matrix(const py::tuple& f) {
  const Matrix m{floats(f[0]), f[2].cast<int64_t>(), f[3].cast<int64_t>(), floats(f[1]), nullptr, nullptr};
  if (m.rows % kChannelUnit || m.depth % kChannelUnit) throw py::value_error("sizes must be multiples of 16");
  return m;
}

// (address of weight, of bias, eps)
LayerNorm layer_norm(const py::tuple& f) { return {floats(f[0]), floats(f[1]), f[2].cast<float>()}; }

}  // namespace

FASTPROMPT_BIND(encoder) {
  m.def("normalised_linear", [](int64_t tokens, std::uintptr_t x, const py::tuple& norm, const py::tuple& linear,
                                std::uintptr_t out, int precision, int threads) {
    const NormalisedLinear a{tokens, out_floats(x), layer_norm(norm), matrix(linear), out_floats(out)};
    py::gil_scoped_release nogil;
    normalised_linear(a, static_cast<Precision>(precision), threads);
  });
  m.def("residual_mlp",
        [](int64_t tokens, std::uintptr_t x, std::uintptr_t attended, const py::tuple& project, const py::tuple& norm,
           const py::tuple& mlp1, const py::tuple& mlp2, std::uintptr_t out, int precision, int threads) {
          const ResidualMlp a{tokens,           out_floats(x), out_floats(attended), matrix(project),
                              layer_norm(norm), matrix(mlp1),  matrix(mlp2),         out_floats(out)};
          py::gil_scoped_release nogil;
          residual_mlp(a, static_cast<Precision>(precision), threads);
        });
}
