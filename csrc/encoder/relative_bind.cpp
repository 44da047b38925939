#include "encoder/relative.h"
#include "bind.h"

using namespace fastprompt;

namespace {

TokenRows rows(const py::tuple& f) {
  return {floats(f[0]), f[1].cast<int64_t>(), f[2].cast<int64_t>(), f[3].cast<int64_t>()};
}

// Fields in the order of RelativeAttention; an address of 0 is absent.
RelativeAttention relative(const py::tuple& sizes, const py::tuple& q, const py::tuple& k, const py::tuple& v,
                           const py::tuple& rel, const py::tuple& coordinates, const py::tuple& padding, float scale) {
  RelativeAttention a{};
  int64_t* fields[] = {&a.images, &a.tokens,  &a.heads,         &a.width,
                       &a.height, &a.columns, &a.window_height, &a.window_columns};
  for (int n = 0; n < 8; ++n) *fields[n] = sizes[n].cast<int64_t>();
  a.query = rows(q), a.key = rows(k), a.value = rows(v);
  a.rel_h = floats(rel[0]), a.rel_w = floats(rel[1]);
  a.coordinates = reinterpret_cast<const int32_t*>(coordinates[0].cast<std::uintptr_t>());
  a.coordinate_step = coordinates[1].cast<int64_t>();
  a.pad_key = floats(padding[0]), a.pad_value = floats(padding[1]);
  a.scale = scale;
  return a;
}

}  // namespace

FASTPROMPT_BIND(relative_attention) {
  m.def("relative_attention",
        [](const py::tuple& sizes, const py::tuple& q, const py::tuple& k, const py::tuple& v, const py::tuple& rel,
           const py::tuple& coordinates, const py::tuple& padding, float scale, std::uintptr_t out,
           std::uintptr_t log_weight, int precision, int threads) {
          RelativeAttention a = relative(sizes, q, k, v, rel, coordinates, padding, scale);
          a.out = reinterpret_cast<float*>(out), a.log_weight = reinterpret_cast<float*>(log_weight);
          a.precision = static_cast<Precision>(precision), a.threads = threads;
          py::gil_scoped_release nogil;
          relative_attention(a);
        });
  m.def("relative_gradient",
        [](const py::tuple& sizes, const py::tuple& q, const py::tuple& k, const py::tuple& v, const py::tuple& rel,
           const py::tuple& coordinates, const py::tuple& padding, float scale, std::uintptr_t out,
           std::uintptr_t log_weight, std::uintptr_t out_grad, const py::tuple& grads, int threads) {
          RelativeGradient g{};
          g.forward = relative(sizes, q, k, v, rel, coordinates, padding, scale);
          g.forward.out = reinterpret_cast<float*>(out);
          g.forward.log_weight = reinterpret_cast<float*>(log_weight);
          g.forward.threads = threads;
          g.out_grad = reinterpret_cast<const float*>(out_grad);
          float** fields[] = {&g.query_grad, &g.key_grad, &g.value_grad, &g.rel_h_grad, &g.rel_w_grad};
          for (int n = 0; n < 5; ++n) *fields[n] = const_cast<float*>(floats(grads[n]));
          py::gil_scoped_release nogil;
          relative_gradient(g);
        });
}
