#include "bind.h"

#include "common/bf16.h"
#include "common/isa.h"
#include "common/release.h"

using namespace fastprompt;

FASTPROMPT_BIND(common) {
  m.def("isa", [] { return isa_name(isa()); });
  m.def("best_isa", [] { return isa_name(best_isa()); });
  m.def("bf16", &bf16_name);
  m.def("release_memory", &release_memory);
  m.def("uses_bf16", [](int precision) { return bf16(static_cast<Precision>(precision)) != nullptr; });
  m.def("set_bf16", [](const std::string& name) {
    if (!set_bf16(name.c_str())) throw py::value_error("this machine has no bfloat16 engine '" + name + "'");
  });
  m.def("set_isa", [](const std::string& name) {
    for (Isa i : {Isa::baseline, Isa::avx2, Isa::avx512})
      if (name == isa_name(i)) return set_isa(i);
    throw py::value_error("isa must be 'baseline', 'avx2' or 'avx512', got '" + name + "'");
  });
}
