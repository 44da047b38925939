// What lies under a module of torch, remembered, so that a drop-in looks at it anew only where something has changed.
#include "bind.h"

namespace fastprompt {
namespace {

constexpr int kMostDepth = 64;  // of modules in modules

// All that decides what a module computes, as a sequence of objects: its class, the forward of it and of its bases, its
// attributes, what its dictionaries of modules, parameters, buffers and hooks hold, and the same of the modules inside.
// Left out are `training`, which drop-ins ask at every call, and what drop-ins keep (`_fastprompt_…`).
template <class Visit>
class Walk {
 public:
  explicit Walk(Visit visit) : visit_(visit) {}

  bool module(PyObject* m, int depth = 0) {
    if (depth > kMostDepth) throw py::value_error("modules are nested more than 64 deep");
    if (!visit_(reinterpret_cast<PyObject*>(Py_TYPE(m))) || !forwards(Py_TYPE(m)->tp_mro)) return false;
    const auto attributes = py::reinterpret_steal<py::object>(PyObject_GetAttr(m, names().dict));
    if (!attributes) throw py::error_already_set();
    PyObject *key, *value, *modules = nullptr;
    for (Py_ssize_t at = 0; PyDict_Next(attributes.ptr(), &at, &key, &value);) {
      const std::string_view name = text(key);
      if (name == "training" || name.substr(0, 12) == "_fastprompt_") continue;
      if (!visit_(key)) return false;
      const bool inner = !name.empty() && name[0] == '_' && PyDict_Check(value);
      if (!(inner ? items(value) : visit_(value))) return false;
      if (name == "_modules") modules = value;
    }
    if (!modules || !PyDict_Check(modules)) return true;
    for (Py_ssize_t at = 0; PyDict_Next(modules, &at, &key, &value);)
      if (value != Py_None && !module(value, depth + 1)) return false;
    return true;
  }

 private:
  struct Names {
    PyObject* forward = PyUnicode_InternFromString("forward");
    PyObject* dict = PyUnicode_InternFromString("__dict__");
  };
  static const Names& names() {
    static const Names found;
    return found;
  }
  static std::string_view text(PyObject* key) {
    Py_ssize_t length = 0;
    const char* found = PyUnicode_Check(key) ? PyUnicode_AsUTF8AndSize(key, &length) : "";
    return {found ? found : "", static_cast<size_t>(length)};
  }
  // Of the class and its bases: a drop-in's own base is the host's class, whose method somebody may replace.
  bool forwards(PyObject* bases) {
    for (Py_ssize_t k = 0; k + 1 < PyTuple_GET_SIZE(bases); ++k) {  // the last one is `object`
      const auto found =
          py::reinterpret_steal<py::object>(PyObject_GetAttr(PyTuple_GET_ITEM(bases, k), names().forward));
      if (!found) PyErr_Clear();
      if (!visit_(found ? found.ptr() : Py_None)) return false;
    }
    return true;
  }
  bool items(PyObject* dictionary) {
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(dictionary, &at, &key, &value);)
      if (!visit_(key) || !visit_(value)) return false;
    return visit_(Py_None);  // where it ends
  }

  Visit visit_;
};

// The objects stay alive in the list: none of them can be replaced by another one at its address.
py::list watched(const py::handle& module) {
  py::list found;
  Walk walk([&](PyObject* x) { return found.append(py::handle(x)), true; });
  walk.module(module.ptr());
  return found;
}

bool unchanged(const py::handle& module, const py::list& seen) {
  const Py_ssize_t count = PyList_GET_SIZE(seen.ptr());
  Py_ssize_t at = 0;
  Walk walk([&](PyObject* x) { return at < count && PyList_GET_ITEM(seen.ptr(), at++) == x; });
  return walk.module(module.ptr()) && at == count;
}

}  // namespace
}  // namespace fastprompt

FASTPROMPT_BIND(watch) {
  m.def("watched", &fastprompt::watched);
  m.def("unchanged", &fastprompt::unchanged);
}
