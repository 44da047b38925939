#include "bind.h"

#include "pooling/film.h"
#include "pooling/pool.h"
#include "pooling/prior.h"
#include "pooling/similarity.h"

using namespace fastprompt;

FASTPROMPT_BIND(pooling) {
  m.attr("prior_level_eps") = kPriorLevelEps;
  define(m, "masked_pool", [](Fields& f) {
    MaskedPool a{};
    a.features = f.array("features", "batch channels height width");
    const Array mask = f.strided("mask", "batch masks mask_height mask_width");
    a.bytes = holds<uint8_t>(mask.kind);
    a.mask = a.bytes ? static_cast<const void*>(f.array<uint8_t>("mask", "batch masks mask_height mask_width"))
                     : f.array("mask", "batch masks mask_height mask_width");
    f.sizes({{"batch", &a.batch}, {"channels", &a.channels}, {"height", &a.height}, {"width", &a.width}});
    f.sizes({{"masks", &a.masks}, {"mask_height", &a.mask_height}, {"mask_width", &a.mask_width}});
    a.resize = f.choice<PoolResize>("resize", {"features", "mask", "average"});
    a.align_corners = f.flag("align_corners"), a.background = f.flag("background"), a.hard = f.flag("hard");
    a.threshold = f.number<float>("threshold"), a.eps = f.number<float>("eps"), a.empty = f.number<float>("empty");
    a.out = f.result("out", {a.batch, a.rows(), a.channels}), a.threads = f.threads();
    f.run(masked_pool, a);
  });
  define(m, "similarity", [](Fields& f) {
    Similarity a{};
    a.features = f.array("features", "batch channels pixels"), a.row = f.array("rows", "row_images rows channels");
    f.sizes({{"batch", &a.batch}, {"channels", &a.channels}, {"pixels", &a.pixels}});
    f.sizes({{"rows", &a.rows}, {"row_images", &a.row_images}});
    f.need(a.row_images == 1 || a.row_images == a.batch, "rows", "must be of one image or of each");
    a.scale = f.number<float>("scale"), a.eps = f.number<float>("eps");
    a.temperature = f.number<float>("temperature"), a.sharpest = f.number<float>("sharpest");
    a.kind = f.choice<SimilarityOutput>("kind", {"none", "softmax", "argmax"});
    f.need(a.rows > 0 || a.kind != SimilarityOutput::argmax, "rows", "must hold a row to choose");
    if (a.kind == SimilarityOutput::argmax)
      a.index = f.result<int64_t>("out", {a.batch, a.pixels});
    else
      a.out = f.result("out", {a.batch, a.rows, a.pixels});
    a.precision = f.precision(), a.threads = f.threads();
    f.run(similarity, a);
  });
  define(m, "prior_mask", [](Fields& f) {
    PriorMask a{};
    a.query = f.array("query", "images channels query_pixels");
    a.support = f.array("support", "pairs channels support_pixels"), a.mask = f.array("mask", "pairs support_pixels");
    f.sizes({{"pairs", &a.pairs}, {"channels", &a.channels}});
    f.sizes({{"query_pixels", &a.query_pixels}, {"support_pixels", &a.support_pixels}});
    const int64_t images = f.size("images");
    f.need(a.pairs == 0 || (images > 0 && a.pairs % images == 0), "support", "must have as many shots for every query");
    a.shots = images ? a.pairs / images : 0;
    a.eps = f.number<float>("eps"), a.out = f.result("out", "pairs query_pixels");
    a.precision = f.precision(), a.threads = f.threads();
    f.run(prior_mask, a);
  });
  define(m, "film", [](Fields& f) {
    Film a{};
    a.last = f.flag("last");
    a.x = f.array("x", a.last ? "images inner channels" : "images channels inner");
    a.gamma = f.array("gamma", "batch channels"), a.beta = f.array("beta", "batch channels");
    f.sizes({{"batch", &a.batch}, {"channels", &a.channels}, {"inner", &a.inner}, {"images", &a.images}});
    f.need(a.images == 1 || a.images == a.batch, "x", "must be of one image or of each");
    a.out = f.result("out", a.last ? "batch inner channels" : "batch channels inner"), a.threads = f.threads();
    f.run(film, a);
  });
}
