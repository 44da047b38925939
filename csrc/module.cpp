#include "bind.h"

PYBIND11_MODULE(_C, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of fastprompt. Private: pointers and sizes are trusted, call fastprompt.<function>.";
  for (auto* b = fastprompt::Binding::first; b; b = b->next) b->define(m);
}
