#include "geodesic/cuda.h"
#include "geodesic/fields.h"

using namespace fastprompt;

namespace {

// The fields of a call whose arrays are contiguous, float32 (barriers: uint8) and on the current device; `out` has a
// place for either side of a map where the call is two-sided.
GeodesicCuda on_device(const Geodesic& g) {
  GeodesicCuda a{};
  a.image = static_cast<const float*>(g.image.data), a.start = static_cast<const float*>(g.start.data);
  a.barrier = static_cast<const uint8_t*>(g.barrier.data);
  a.out = g.out;
  a.batch = static_cast<int>(g.batch), a.channels = static_cast<int>(g.channels);
  a.sets = static_cast<int>(g.two_sided ? 2 * g.sets : g.sets);
  a.nz = static_cast<int>(g.nz), a.ny = static_cast<int>(g.ny), a.nx = static_cast<int>(g.nx);
  a.volume = g.volume, a.metric = g.metric, a.start_kind = g.start_kind, a.two_sided = g.two_sided;
  a.iterations = g.iterations, a.grad_weight = g.grad_weight, a.step_weight = g.step_weight;
  for (int k = 0; k < 3; ++k) a.spacing[k] = g.spacing[k];
  a.v = g.v, a.limit = g.limit;
  return a;
}

}  // namespace

FASTPROMPT_BIND(geodesic_cuda) {
  m.def("geodesic_distance_cuda_workspace", [](const py::args& f) {
    const Geodesic g = geodesic_fields(f);
    const GeodesicCuda a = on_device(g);
    return g.method == Method::exact ? geodesic_exact_cuda_workspace(a) : geodesic_raster_cuda_workspace(a);
  });
  m.def("geodesic_distance_cuda", [](std::uintptr_t workspace, std::uintptr_t stream, const py::args& f) {
    const Geodesic g = geodesic_fields(f);
    GeodesicCuda a = on_device(g);
    a.workspace = reinterpret_cast<int*>(workspace);
    py::gil_scoped_release nogil;
    g.method == Method::exact ? geodesic_exact_cuda(a, reinterpret_cast<void*>(stream))
                              : geodesic_raster_cuda(a, reinterpret_cast<void*>(stream));
  });
  m.def("geodesic_distance_backward_cuda_workspace",
        [](const py::args& f) { return geodesic_gradient_cuda_workspace(on_device(geodesic_fields(f))); });
  m.def("geodesic_distance_backward_cuda", [](std::uintptr_t grad, std::uintptr_t grad_image, std::uintptr_t grad_start,
                                              std::uintptr_t workspace, std::uintptr_t stream, const py::args& f) {
    GeodesicGradientCuda g{on_device(geodesic_fields(f)), reinterpret_cast<const float*>(grad),
                           reinterpret_cast<float*>(grad_image), reinterpret_cast<float*>(grad_start)};
    g.forward.workspace = reinterpret_cast<int*>(workspace);
    py::gil_scoped_release nogil;
    geodesic_gradient_cuda(g, reinterpret_cast<void*>(stream));
  });
}
