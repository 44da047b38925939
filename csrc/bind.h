#pragma once
#include <pybind11/pybind11.h>

namespace fastprompt {

namespace py = pybind11;

inline const float* floats(const py::handle& address) {
  return reinterpret_cast<const float*>(address.cast<std::uintptr_t>());
}
inline float* out_floats(std::uintptr_t address) { return reinterpret_cast<float*>(address); }

// FASTPROMPT_BIND(family) { m.def(...); } adds definitions to the module, so that module.cpp has no list of families.
struct Binding {
  using Define = void (*)(py::module_&);
  explicit Binding(Define define) : define(define), next(first) { first = this; }
  Define define;
  Binding* next;
  static inline Binding* first = nullptr;  // constant-initialised: no order problem between files
};

#define FASTPROMPT_BIND(family)                                  \
  static void define_##family(fastprompt::py::module_& m);       \
  static fastprompt::Binding binding_##family{&define_##family}; \
  static void define_##family(fastprompt::py::module_& m)

}  // namespace fastprompt
