#include "geodesic/check.h"
#include "geodesic/fields.h"

namespace fastprompt {

// The fields of Geodesic but `out`.
Geodesic geodesic_fields(Fields& f) {
  Geodesic a{};
  a.image = f.view("image", "batch channels nz ny nx"), a.start = f.view("start", "batch sets nz ny nx");
  a.barrier = f.optional_view("barrier", "batch 1 nz ny nx");
  f.need(!a.barrier.data || a.barrier.dtype == DType::u8, "barrier", "must hold bool or uint8");
  f.sizes({{"batch", &a.batch}, {"channels", &a.channels}, {"sets", &a.sets}});
  f.sizes({{"nz", &a.nz}, {"ny", &a.ny}, {"nx", &a.nx}});
  a.volume = f.flag("volume");
  f.need(a.volume || a.nz == 1, "image", "must have one plane where it is no volume");
  a.metric = f.choice<Metric>("metric", {"fastgeodis", "geodistk", "geodistk_fm"});
  a.method = f.choice<Method>("method", {"raster", "toivanen", "exact"});
  a.start_kind = f.choice<Start>("start_kind", {"cost", "seed", "nonzero"});
  a.two_sided = f.flag("two_sided");
  a.iterations = f.number<int>("iterations");
  a.grad_weight = f.number<float>("lam"), a.step_weight = f.number<float>("step_weight");
  f.numbers("spacing", a.spacing);
  a.v = f.number<float>("v"), a.limit = f.number<float>("limit");
  check_numbers(a);
  return a;
}

}  // namespace fastprompt

using namespace fastprompt;

FASTPROMPT_BIND(geodesic) {
  m.attr("most_iterations") = kMostIterations;
  define(m, "geodesic_distance", [](Fields& f) {
    Geodesic a = geodesic_fields(f);
    a.out = f.result("out", "batch sets nz ny nx"), a.threads = f.threads();
    f.run(a.two_sided ? signed_geodesic_distance : geodesic_distance, a);
  });
  define(m, "geodesic_distance_backward", [](Fields& f) {
    GeodesicGradient g{geodesic_fields(f), nullptr, nullptr, nullptr};
    const Geodesic& a = g.forward;
    g.forward.threads = f.threads();
    f.need(a.method == Method::exact, "method", "must be exact: the others have no gradient");
    g.grad = f.array("grad", "batch sets nz ny nx"), g.grad_image = f.result("grad_image", "batch channels nz ny nx");
    g.grad_start = f.result("grad_start", {a.batch, a.two_sided ? 2 * a.sets : a.sets, a.nz, a.ny, a.nx});
    f.run(geodesic_distance_backward, g);
  });
}
