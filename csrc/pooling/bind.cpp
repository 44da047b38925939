#include "bind.h"

#include "pooling/film.h"
#include "pooling/pool.h"
#include "pooling/prior.h"
#include "pooling/similarity.h"

using namespace fastprompt;

namespace {

template <size_t Count>
void fill(int64_t* const (&fields)[Count], const py::tuple& sizes) {
  for (size_t k = 0; k < Count; ++k) *fields[k] = sizes[k].cast<int64_t>();
}

}  // namespace

FASTPROMPT_BIND(pooling) {
  m.def("masked_pool", [](const py::tuple& sizes, const py::handle& features, std::uintptr_t mask, bool bytes,
                          int resize, bool align_corners, bool background, bool hard, float threshold, float eps,
                          float empty, std::uintptr_t out, int threads) {
    MaskedPool a{};
    fill({&a.batch, &a.channels, &a.height, &a.width, &a.masks, &a.mask_height, &a.mask_width}, sizes);
    a.features = floats(features), a.mask = reinterpret_cast<const void*>(mask), a.bytes = bytes;
    a.resize = static_cast<PoolResize>(resize), a.align_corners = align_corners, a.background = background;
    a.hard = hard, a.threshold = threshold, a.eps = eps, a.empty = empty;
    a.out = out_floats(out), a.threads = threads;
    py::gil_scoped_release nogil;
    masked_pool(a);
  });
  m.def("similarity",
        [](const py::tuple& sizes, const py::handle& features, const py::handle& row, float scale, float eps,
           float temperature, int kind, float sharpest, std::uintptr_t out, int precision, int threads) {
          Similarity a{};
          fill({&a.batch, &a.channels, &a.pixels, &a.rows, &a.row_images}, sizes);
          a.features = floats(features), a.row = floats(row);
          a.scale = scale, a.eps = eps, a.temperature = temperature, a.sharpest = sharpest;
          a.kind = static_cast<SimilarityOutput>(kind);
          a.out = out_floats(out), a.index = reinterpret_cast<int64_t*>(out);
          a.precision = static_cast<Precision>(precision), a.threads = threads;
          py::gil_scoped_release nogil;
          similarity(a);
        });
  m.def("prior_mask", [](const py::tuple& sizes, const py::handle& query, const py::handle& support,
                         const py::handle& mask, float eps, std::uintptr_t out, int precision, int threads) {
    PriorMask a{};
    fill({&a.pairs, &a.shots, &a.channels, &a.query_pixels, &a.support_pixels}, sizes);
    a.query = floats(query), a.support = floats(support), a.mask = floats(mask), a.eps = eps;
    a.out = out_floats(out), a.precision = static_cast<Precision>(precision), a.threads = threads;
    py::gil_scoped_release nogil;
    prior_mask(a);
  });
  m.def("film", [](const py::tuple& sizes, bool last, const py::handle& x, const py::handle& gamma,
                   const py::handle& beta, std::uintptr_t out, int threads) {
    Film a{};
    fill({&a.batch, &a.channels, &a.inner, &a.images}, sizes);
    a.last = last, a.x = floats(x), a.gamma = floats(gamma), a.beta = floats(beta);
    a.out = out_floats(out), a.threads = threads;
    py::gil_scoped_release nogil;
    film(a);
  });
}
