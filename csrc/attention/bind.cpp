#include "bind.h"

#include "attention/prompt.h"

using namespace fastprompt;

namespace {

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

}  // namespace

FASTPROMPT_BIND(attention) {
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
