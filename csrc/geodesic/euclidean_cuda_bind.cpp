#include "bind.h"
#include "geodesic/check.h"
#include "geodesic/cuda_euclidean.h"

using namespace fastprompt;

namespace {

EuclideanCuda euclidean_fields(Fields& f) {
  f.on_gpu();
  EuclideanCuda a{};
  a.mask = f.array<uint8_t>("mask", "batch 1 nz ny nx");
  a.batch = f.size("batch"), a.nz = static_cast<int>(f.size("nz"));
  a.ny = static_cast<int>(f.size("ny")), a.nx = static_cast<int>(f.size("nx"));
  return a;
}

}  // namespace

FASTPROMPT_BIND(euclidean_cuda) {
  m.attr("euclidean_cuda_rows") = kEuclideanCudaRows;
  m.attr("euclidean_cuda_line") = kEuclideanCudaLine;
  define(m, "euclidean_cuda_workspace", [](Fields& f) {
    const EuclideanCuda a = euclidean_fields(f);
    f.done();
    return euclidean_cuda_workspace(a);
  });
  define(m, "euclidean_distance_transform_cuda", [](Fields& f) {
    EuclideanCuda a = euclidean_fields(f);
    a.out = f.result("out", "batch 1 nz ny nx"), a.workspace = f.result("workspace", "floats");
    f.need(f.size("floats") >= euclidean_cuda_workspace(a), "workspace", "is too small");
    f.numbers("spacing", a.spacing);
    for (const double s : a.spacing) check_spacing(s);
    f.run(euclidean_cuda, a, f.stream());
  });
}
