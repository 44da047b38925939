#include "bind.h"
#include "geodesic/euclidean.h"

using namespace fastprompt;

FASTPROMPT_BIND(euclidean) {
  // mask: (address, dtype, strides); shape: (batch, nz, ny, nx); spacing: (z, y, x).
  m.def("euclidean_distance_transform",
        [](const py::tuple& mask, std::uintptr_t out, const py::tuple& shape, const py::tuple& spacing, int threads) {
          EuclideanTransform a{};
          a.mask = {reinterpret_cast<const void*>(mask[0].cast<std::uintptr_t>()), DType::u8, {}};
          for (int k = 0; k < 5; ++k) a.mask.stride[k] = mask[2].cast<py::tuple>()[k].cast<int64_t>();
          a.out = reinterpret_cast<float*>(out);
          int64_t* sizes[] = {&a.batch, &a.nz, &a.ny, &a.nx};
          for (int k = 0; k < 4; ++k) *sizes[k] = shape[k].cast<int64_t>();
          for (int k = 0; k < 3; ++k) a.spacing[k] = spacing[k].cast<double>();
          a.threads = threads;
          py::gil_scoped_release nogil;
          euclidean_distance_transform(a);
        });
}
