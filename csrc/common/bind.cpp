#include "bind.h"

#include "common/bf16.h"
#include "common/isa.h"
#include "common/release.h"
#include "common/sample.h"

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
  // Of blocks (address, bytes) that the caller keeps alive.
  m.def("sample", [](const std::vector<std::pair<std::uintptr_t, std::size_t>>& blocks, std::size_t lines) {
    uint64_t found = 0;
    for (const auto& [address, bytes] : blocks)
      if (bytes) found = found * 31 + sample(reinterpret_cast<const void*>(address), bytes, lines);
    return found;
  });
}
