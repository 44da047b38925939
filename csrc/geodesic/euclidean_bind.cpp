#include "bind.h"
#include "geodesic/euclidean.h"

using namespace fastprompt;

FASTPROMPT_BIND(euclidean) {
  define(m, "euclidean_distance_transform", [](Fields& f) {
    EuclideanTransform a{};
    a.mask = f.view("mask", "batch 1 nz ny nx");
    f.need(a.mask.dtype == DType::u8, "mask", "must hold bool or uint8");
    f.sizes({{"batch", &a.batch}, {"nz", &a.nz}, {"ny", &a.ny}, {"nx", &a.nx}});
    f.numbers("spacing", a.spacing);
    a.out = f.result("out", "batch 1 nz ny nx"), a.threads = f.threads();
    f.run(euclidean_distance_transform, a);
  });
}
