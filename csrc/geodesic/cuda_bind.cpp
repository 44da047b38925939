#include "geodesic/cuda.h"
#include "geodesic/fields.h"

using namespace fastprompt;

namespace {

// The fields of a call whose arrays are contiguous, float32 (barriers: uint8) and on the current device.
GeodesicCuda on_device(Fields& f) {
  f.on_gpu();
  const Geodesic g = geodesic_fields(f);
  for (const char* name : {"image", "start", "barrier"})
    f.need(!f.given(name) || f.read(name).contiguous(), name, "must be contiguous on a GPU");
  f.need(g.image.dtype == DType::f32 && g.start.dtype == DType::f32, "image and start", "must hold float32 on a GPU");
  GeodesicCuda a{};
  a.image = static_cast<const float*>(g.image.data), a.start = static_cast<const float*>(g.start.data);
  a.barrier = static_cast<const uint8_t*>(g.barrier.data);
  a.batch = static_cast<int>(g.batch), a.channels = static_cast<int>(g.channels);
  a.sets = static_cast<int>(g.two_sided ? 2 * g.sets : g.sets);
  a.nz = static_cast<int>(g.nz), a.ny = static_cast<int>(g.ny), a.nx = static_cast<int>(g.nx);
  a.volume = g.volume, a.metric = g.metric, a.start_kind = g.start_kind, a.two_sided = g.two_sided;
  a.iterations = g.iterations, a.grad_weight = g.grad_weight, a.step_weight = g.step_weight;
  for (int k = 0; k < 3; ++k) a.spacing[k] = g.spacing[k];
  a.v = g.v, a.limit = g.limit;
  return a;
}

bool is_exact(Fields& f) {
  const auto method = f.choice<Method>("method", {"raster", "toivanen", "exact"});
  f.need(method != Method::toivanen, "method", "must be raster or exact on a GPU");
  return method == Method::exact;
}

int* workspace(Fields& f, int64_t ints) {
  int* found = f.result<int32_t>("workspace", "ints");
  f.need(f.size("ints") >= ints, "workspace", "is too small");
  return found;
}

}  // namespace

FASTPROMPT_BIND(geodesic_cuda) {
  define(m, "geodesic_distance_cuda_workspace", [](Fields& f) {
    const GeodesicCuda a = on_device(f);
    const bool exact = is_exact(f);
    f.done();
    return exact ? geodesic_exact_cuda_workspace(a) : geodesic_raster_cuda_workspace(a);
  });
  // `out` has a place for either side of a map where the call is two-sided.
  define(m, "geodesic_distance_cuda", [](Fields& f) {
    GeodesicCuda a = on_device(f);
    const bool exact = is_exact(f);
    a.out = f.result("out", {a.batch, a.sets, a.nz, a.ny, a.nx});
    a.workspace = workspace(f, exact ? geodesic_exact_cuda_workspace(a) : geodesic_raster_cuda_workspace(a));
    f.run(exact ? geodesic_exact_cuda : geodesic_raster_cuda, a, f.stream());
  });
  define(m, "geodesic_distance_backward_cuda_workspace", [](Fields& f) {
    const GeodesicCuda a = on_device(f);
    f.need(is_exact(f), "method", "must be exact");
    f.done();
    return geodesic_gradient_cuda_workspace(a);
  });
  define(m, "geodesic_distance_backward_cuda", [](Fields& f) {
    GeodesicGradientCuda g{on_device(f), nullptr, nullptr, nullptr};
    GeodesicCuda& a = g.forward;
    f.need(is_exact(f), "method", "must be exact");
    a.out = const_cast<float*>(f.array("distances", {a.batch, a.sets, a.nz, a.ny, a.nx}));
    g.grad = f.array("grad", "batch sets nz ny nx"), g.grad_image = f.result("grad_image", "batch channels nz ny nx");
    g.grad_start = f.result("grad_start", {a.batch, a.sets, a.nz, a.ny, a.nx});
    a.workspace = workspace(f, geodesic_gradient_cuda_workspace(a));
    f.run(geodesic_gradient_cuda, g, f.stream());
  });
}
