#include <vector>

#include "decoder/low_rank.h"
#include "decoder/low_rank_bind.h"
#include "decoder/two_way.h"
#include "bind.h"

using namespace fastprompt;

namespace {

// Weights, one address after the other, in the order of the fields of TwoWayLayer.
struct Addresses {
  const py::tuple& all;
  size_t at = 0;
  const float* next() { return floats(all[at++]); }
  Linear linear() {
    const float* weight = next();
    return {weight, next()};
  }
  LayerNorm norm(float eps) {
    const Linear l = linear();
    return {l.weight, l.bias, eps};
  }
  AttentionWeights attention() {
    const Linear query = linear(), key = linear(), value = linear();
    return {query, key, value, linear()};
  }
};

TwoWayLayer two_way_layer(Addresses& w, float eps) {
  TwoWayLayer l;
  l.self = w.attention(), l.norm1 = w.norm(eps);
  l.to_image = w.attention(), l.norm2 = w.norm(eps);
  l.mlp1 = w.linear(), l.mlp2 = w.linear(), l.norm3 = w.norm(eps);
  l.to_prompt = w.attention(), l.norm4 = w.norm(eps);
  return l;
}

// Weights of all layers and of the final attention.
struct Transformer {
  std::vector<TwoWayLayer> layers;
  AttentionWeights final;
  LayerNorm final_norm;
  Transformer(const py::tuple& weights, const py::tuple& eps, int64_t depth) {
    Addresses w{weights};
    for (int64_t n = 0; n < depth; ++n) layers.push_back(two_way_layer(w, eps[0].cast<float>()));
    final = w.attention(), final_norm = w.norm(eps[1].cast<float>());
  }
};

// `sizes` are the fields of TwoWay in their order; the out addresses are those of prompt_out and image_out.
TwoWay two_way_args(const py::tuple& sizes, const py::handle& prompt, const py::handle& prepared, const Transformer& t,
                    const py::tuple& out, int threads) {
  TwoWay a{};
  int64_t* fields[] = {&a.images, &a.prompts, &a.channels, &a.pixels, &a.tokens, &a.heads, &a.width, &a.mlp, &a.depth};
  for (int k = 0; k < 9; ++k) *fields[k] = sizes[k].cast<int64_t>();
  if (a.images < 1 || a.prompts % a.images) throw py::value_error("prompts must be a multiple of images");
  if (a.width % 16 || a.channels % (16 * a.heads) || a.mlp % 16) throw py::value_error("sizes must be multiples of 16");
  a.layers = t.layers.data(), a.final = t.final, a.final_norm = t.final_norm;
  a.prompt = floats(prompt), a.prepared = floats(prepared);
  a.prompt_out = const_cast<float*>(floats(out[0])), a.image_out = const_cast<float*>(floats(out[1]));
  a.threads = threads;
  return a;
}

}  // namespace

FASTPROMPT_BIND(two_way) {
  m.def("two_way_prepare", [](const py::tuple& sizes, const py::handle& image, const py::handle& position,
                              const py::tuple& weights, std::uintptr_t out, int threads) {
    TwoWayImage a{};
    int64_t* fields[] = {&a.images, &a.channels, &a.pixels, &a.inner};
    for (int k = 0; k < 4; ++k) *fields[k] = sizes[k].cast<int64_t>();
    a.image = floats(image), a.position = floats(position);
    Addresses w{weights};
    a.key = w.linear(), a.value = w.linear(), a.query = w.linear();
    a.out = out_floats(out), a.threads = threads;
    py::gil_scoped_release nogil;
    two_way_prepare(a);
  });
  m.def("two_way", [](const py::tuple& sizes, const py::handle& prompt, const py::handle& prepared,
                      const py::tuple& weights, const py::tuple& eps, const py::tuple& out, int threads) {
    const Transformer t(weights, eps, sizes[8].cast<int64_t>());
    const TwoWay a = two_way_args(sizes, prompt, prepared, t, out, threads);
    py::gil_scoped_release nogil;
    two_way(a);
  });
  m.def("low_rank_prepare",
        [](const py::tuple& sizes, const py::tuple& layout, const py::handle& image, const py::handle& position,
           const py::tuple& weights, const py::tuple& eps, const py::handle& up, std::uintptr_t out, int threads) {
          LowRankImage a{};
          a.layout = low_rank_layout(layout);
          const Transformer t(weights, eps, a.layout.depth);
          a.images = sizes[0].cast<int64_t>(), a.channels = sizes[1].cast<int64_t>();
          a.pixels = sizes[2].cast<int64_t>();
          a.image = floats(image), a.position = floats(position), a.up_weight = floats(up);
          a.layers = t.layers.data(), a.final = t.final;
          a.out = out_floats(out), a.threads = threads;
          py::gil_scoped_release nogil;
          low_rank_prepare(a);
        });
  m.def("low_rank", [](const py::tuple& sizes, const py::tuple& layout, const py::handle& prompt,
                       const py::handle& prepared, const py::tuple& weights, const py::tuple& eps, const py::handle& up,
                       const py::tuple& out, int precision, int threads) {
    const Transformer t(weights, eps, sizes[8].cast<int64_t>());
    const Precision p = static_cast<Precision>(precision);
    const TwoWay two_way = two_way_args(sizes, prompt, prepared, t, out, threads);
    const LowRank a{two_way, low_rank_layout(layout), floats(up), bf16(p), p == Precision::high};
    py::gil_scoped_release nogil;
    low_rank(a);
  });
}
