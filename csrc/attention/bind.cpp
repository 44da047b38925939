#include "bind.h"

#include <vector>

#include "attention/prompt.h"
#include "attention/two_way.h"

using namespace fastprompt;

namespace {

const float* floats(const py::handle& address) {
  return reinterpret_cast<const float*>(address.cast<std::uintptr_t>());
}

// Each tuple holds the fields of a struct of prompt.h in their order; an address of 0 is absent.
ImageToPrompt image_to_prompt(const py::tuple& f) {
  if (f.empty()) return {};
  ImageToPrompt a{};
  a.form = static_cast<Form>(f[0].cast<int>());
  a.key = floats(f[1]), a.key_bias = floats(f[2]), a.value = floats(f[3]);
  a.query_weight = floats(f[4]), a.out_weight = floats(f[5]), a.out_bias = floats(f[6]);
  a.residual = f[7].cast<bool>();
  a.norm_weight = floats(f[8]), a.norm_bias = floats(f[9]), a.eps = f[10].cast<float>();
  return a;
}

PromptToImage prompt_to_image(const py::tuple& f) {
  if (f.empty()) return {};
  PromptToImage a{};
  a.form = static_cast<Form>(f[0].cast<int>());
  a.query = floats(f[1]), a.key_weight = floats(f[2]), a.value_weight = floats(f[3]), a.bias = floats(f[4]);
  a.out = const_cast<float*>(floats(f[5]));
  return a;
}

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

}  // namespace

FASTPROMPT_BIND(attention) {
  m.def("two_way_floats", &two_way_floats);
  m.def("two_way_prepare", [](const py::tuple& sizes, std::uintptr_t image, std::uintptr_t position,
                              const py::tuple& weights, std::uintptr_t out, int threads) {
    TwoWayImage a{};
    int64_t* fields[] = {&a.images, &a.channels, &a.pixels, &a.inner};
    for (int k = 0; k < 4; ++k) *fields[k] = sizes[k].cast<int64_t>();
    a.image = reinterpret_cast<const float*>(image), a.position = reinterpret_cast<const float*>(position);
    Addresses w{weights};
    a.key = w.linear(), a.value = w.linear(), a.query = w.linear();
    a.out = reinterpret_cast<float*>(out);
    a.threads = threads;
    py::gil_scoped_release nogil;
    two_way_prepare(a);
  });
  m.def("two_way", [](const py::tuple& sizes, std::uintptr_t prompt, std::uintptr_t prepared, const py::tuple& weights,
                      const py::tuple& eps, std::uintptr_t prompt_out, std::uintptr_t image_out, int threads) {
    TwoWay a{};
    int64_t* fields[] = {&a.images, &a.prompts, &a.channels, &a.pixels, &a.tokens,
                         &a.heads,  &a.width,   &a.mlp,      &a.depth};
    for (int k = 0; k < 9; ++k) *fields[k] = sizes[k].cast<int64_t>();
    Addresses w{weights};
    std::vector<TwoWayLayer> layers;
    for (int64_t n = 0; n < a.depth; ++n) layers.push_back(two_way_layer(w, eps[0].cast<float>()));
    a.layers = layers.data();
    a.final = w.attention(), a.final_norm = w.norm(eps[1].cast<float>());
    a.prompt = reinterpret_cast<const float*>(prompt), a.prepared = reinterpret_cast<const float*>(prepared);
    a.prompt_out = reinterpret_cast<float*>(prompt_out), a.image_out = reinterpret_cast<float*>(image_out);
    a.threads = threads;
    py::gil_scoped_release nogil;
    two_way(a);
  });
  m.def("prompt_pass",
        [](const py::tuple& sizes, std::uintptr_t image, std::uintptr_t position, std::uintptr_t lengths,
           const py::tuple& to_prompt, const py::tuple& to_image, std::uintptr_t image_out, int threads) {
          PromptPass a{};
          int64_t* fields[] = {&a.images, &a.prompts, &a.channels, &a.pixels, &a.tokens, &a.heads, &a.width};
          for (int k = 0; k < 7; ++k) *fields[k] = sizes[k].cast<int64_t>();
          a.image = reinterpret_cast<const float*>(image), a.position = reinterpret_cast<const float*>(position);
          a.lengths = reinterpret_cast<const int64_t*>(lengths);
          a.to_prompt = image_to_prompt(to_prompt), a.to_image = prompt_to_image(to_image);
          a.image_out = reinterpret_cast<float*>(image_out);
          a.threads = threads;
          py::gil_scoped_release nogil;
          prompt_pass(a);
        });
}
