#include "bind.h"
#include "geodesic/eikonal.h"

using namespace fastprompt;

namespace {

// (address, dtype, strides) of a 5-D array, from Python.
View view(const py::tuple& t) {
  View v;
  v.data = reinterpret_cast<const void*>(t[0].cast<std::uintptr_t>());
  v.dtype = static_cast<DType>(t[1].cast<int>());
  const auto strides = t[2].cast<py::tuple>();
  for (int k = 0; k < 5; ++k) v.stride[k] = strides[k].cast<int64_t>();
  return v;
}

}  // namespace

FASTPROMPT_BIND(geodesic_eikonal) {
  // shape (channels, nz, ny, nx); spacing (z, y, x). fastprompt/compat/_eikonal.py checks and calls it.
  m.def("geodesic_eikonal", [](const py::tuple& image, const py::tuple& seeds, std::uintptr_t out,
                               const py::tuple& shape, bool volume, double lam, const py::tuple& spacing) {
    Eikonal a{};
    a.image = view(image), a.seeds = view(seeds), a.out = reinterpret_cast<float*>(out);
    if (a.image.dtype != DType::f32 || a.seeds.dtype != DType::u8)
      throw py::value_error("geodesic_eikonal reads a float32 image and uint8 seeds");
    int64_t* sizes[] = {&a.channels, &a.nz, &a.ny, &a.nx};
    for (int k = 0; k < 4; ++k) *sizes[k] = shape[k].cast<int64_t>();
    a.volume = volume;
    a.grad_weight = static_cast<float>(lam), a.step_weight = static_cast<float>(1.0 - lam);
    for (int k = 0; k < 3; ++k) a.spacing[k] = static_cast<float>(spacing[k].cast<double>());
    py::gil_scoped_release nogil;
    eikonal_distance(a);
  });
}
