#include "bind.h"
#include "geodesic/eikonal.h"

using namespace fastprompt;

FASTPROMPT_BIND(geodesic_eikonal) {
  define(m, "geodesic_eikonal", [](Fields& f) {
    Eikonal a{};
    a.image = f.view("image", "1 channels nz ny nx"), a.seeds = f.view("seeds", "1 1 nz ny nx");
    f.need(a.image.dtype == DType::f32, "image", "must hold float32");
    f.need(a.seeds.dtype == DType::u8, "seeds", "must hold bool or uint8");
    f.sizes({{"channels", &a.channels}, {"nz", &a.nz}, {"ny", &a.ny}, {"nx", &a.nx}});
    a.volume = f.flag("volume");
    const double lam = f.number<double>("lam");
    a.grad_weight = static_cast<float>(lam), a.step_weight = static_cast<float>(1.0 - lam);
    f.numbers("spacing", a.spacing);
    a.out = f.result("out", {1, 1, a.nz, a.ny, a.nx});
    f.run(eikonal_distance, a);
  });
}
