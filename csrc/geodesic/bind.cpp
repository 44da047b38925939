#include "geodesic/fields.h"

namespace fastprompt {
namespace {

// (address, dtype, strides) of a 5-D array, from Python; address 0 = absent.
View view(const py::handle& h) {
  const auto t = h.cast<py::tuple>();
  View v;
  v.data = reinterpret_cast<const void*>(t[0].cast<std::uintptr_t>());
  v.dtype = static_cast<DType>(t[1].cast<int>());
  const auto strides = t[2].cast<py::tuple>();
  for (int k = 0; k < 5; ++k) v.stride[k] = strides[k].cast<int64_t>();
  return v;
}

}  // namespace

Geodesic geodesic_fields(const py::args& f) {
  Geodesic a{};
  int n = 0;
  const auto next = [&] { return f[n++]; };
  a.image = view(next()), a.start = view(next()), a.barrier = view(next());
  const auto shape = next().cast<py::tuple>();
  int64_t* sizes[] = {&a.batch, &a.channels, &a.sets, &a.nz, &a.ny, &a.nx};
  for (int k = 0; k < 6; ++k) *sizes[k] = shape[k].cast<int64_t>();
  a.volume = next().cast<bool>();
  a.metric = static_cast<Metric>(next().cast<int>());
  a.method = static_cast<Method>(next().cast<int>());
  a.start_kind = static_cast<Start>(next().cast<int>());
  a.two_sided = next().cast<bool>();
  a.iterations = next().cast<int>();
  a.grad_weight = static_cast<float>(next().cast<double>());
  a.step_weight = static_cast<float>(next().cast<double>());
  const auto spacing = next().cast<py::tuple>();
  for (int k = 0; k < 3; ++k) a.spacing[k] = static_cast<float>(spacing[k].cast<double>());
  a.v = static_cast<float>(next().cast<double>());
  a.limit = static_cast<float>(next().cast<double>());
  a.threads = next().cast<int>();
  a.out = reinterpret_cast<float*>(next().cast<std::uintptr_t>());
  return a;
}

}  // namespace fastprompt

using namespace fastprompt;

FASTPROMPT_BIND(geodesic) {
  m.def("geodesic_distance", [](const py::args& f) {
    const Geodesic a = geodesic_fields(f);
    py::gil_scoped_release nogil;
    a.two_sided ? signed_geodesic_distance(a) : geodesic_distance(a);
  });
  m.def("geodesic_distance_backward",
        [](std::uintptr_t grad, std::uintptr_t grad_image, std::uintptr_t grad_start, const py::args& f) {
          const GeodesicGradient g{geodesic_fields(f), reinterpret_cast<const float*>(grad),
                                   reinterpret_cast<float*>(grad_image), reinterpret_cast<float*>(grad_start)};
          py::gil_scoped_release nogil;
          geodesic_distance_backward(g);
        });
}
