#include "bind.h"
#include "geodesic/cuda_euclidean.h"

using namespace fastprompt;

namespace {

EuclideanCuda arguments(const py::tuple& shape) {
  EuclideanCuda a{};
  a.batch = shape[0].cast<int64_t>();
  int* sizes[] = {&a.nz, &a.ny, &a.nx};
  for (int k = 0; k < 3; ++k) *sizes[k] = shape[k + 1].cast<int>();
  return a;
}

}  // namespace

FASTPROMPT_BIND(euclidean_cuda) {
  m.attr("euclidean_cuda_rows") = kEuclideanCudaRows;
  m.attr("euclidean_cuda_line") = kEuclideanCudaLine;
  // shape: (batch, nz, ny, nx); floats of workspace.
  m.def("euclidean_cuda_workspace", [](const py::tuple& shape) { return euclidean_cuda_workspace(arguments(shape)); });
  // spacing: (z, y, x).
  m.def("euclidean_distance_transform_cuda",
        [](std::uintptr_t mask, std::uintptr_t out, std::uintptr_t workspace, const py::tuple& shape,
           const py::tuple& spacing, std::uintptr_t stream) {
          EuclideanCuda a = arguments(shape);
          a.mask = reinterpret_cast<const uint8_t*>(mask);
          a.out = reinterpret_cast<float*>(out), a.workspace = reinterpret_cast<float*>(workspace);
          for (int k = 0; k < 3; ++k) a.spacing[k] = spacing[k].cast<double>();
          py::gil_scoped_release nogil;
          euclidean_cuda(a, reinterpret_cast<void*>(stream));
        });
}
