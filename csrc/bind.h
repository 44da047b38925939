// How the keywords of a call from Python become the fields of a kernel's struct: by name, and with all that the kernel
// relies on checked here, so that a wrong call is an error and never an access out of bounds.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/bf16.h"
#include "common/view.h"

namespace fastprompt {

namespace py = pybind11;

enum class Kind { f32, f16, bf16, u8, boolean, i32, i64, f64, u64, other };

// A NumPy array or a torch tensor, as it lies; its owner is an argument of the call and lives as long as that.
struct Array {
  static constexpr int kMostAxes = 8;
  char* data = nullptr;
  Kind kind = Kind::other;
  int axes = 0;
  int64_t shape[kMostAxes] = {}, stride[kMostAxes] = {};  // strides in elements
  int64_t item = 0;                                       // bytes; 0: objects, or strides of broken elements
  bool writeable = true, on_gpu = false;
  int64_t count() const;
  bool contiguous(int from = 0) const;  // in the axes from there on
  std::string shape_text() const;
};

template <class T>
constexpr bool holds(Kind kind) {
  if constexpr (std::is_same_v<T, float>) return kind == Kind::f32;
  if constexpr (std::is_same_v<T, double>) return kind == Kind::f64;
  if constexpr (std::is_same_v<T, uint8_t>) return kind == Kind::u8 || kind == Kind::boolean;
  if constexpr (std::is_same_v<T, int32_t>) return kind == Kind::i32;
  if constexpr (std::is_same_v<T, int64_t>) return kind == Kind::i64;
  if constexpr (std::is_same_v<T, uint64_t>) return kind == Kind::u64;
  return true;  // char: any
}

// A shape: names of axes, or numbers that are known otherwise.
struct Axes {
  std::string_view names;
  std::vector<int64_t> sizes;
  Axes(const char* names) : names(names) {}
  Axes(std::initializer_list<int64_t> sizes) : sizes(sizes) {}
};

// work(context) without the lock of Python. Ctrl-C, or another signal whose handler raises, ends it within 0.3 s where
// this is the main thread; what the handler raised is thrown as it is.
void without_lock(void (*work)(void*), void* context);

template <class Work>
void without_lock(Work work) {
  without_lock([](void* context) { (*static_cast<Work*>(context))(); }, &work);
}

// The keywords of one call. Axes have names: the first array that has one says how long it is, the others must agree;
// "batch channels 2" is a shape of two named axes and one of two; numbers known otherwise are a list.
class Fields {
 public:
  Fields(const char* function, const py::kwargs& given);

  int64_t size(std::string_view axis) const;  // of an axis that an array has named
  void sizes(std::initializer_list<std::pair<std::string_view, int64_t*>> fields) const;
  void name(std::string_view axis, int64_t size) { sizes_.emplace_back(axis, size); }

  // Contiguous; a result must be writeable besides.
  template <class T = float>
  const T* array(const char* name, const Axes& shape) {
    const Array x = contiguous(name, shape);
    need_kind(name, x, holds<T>(x.kind), kind_name<T>());
    return reinterpret_cast<const T*>(x.data);
  }
  template <class T = float>
  const T* optional(const char* name, const Axes& shape) {
    return given(name) ? array<T>(name, shape) : (mark(name), nullptr);
  }
  template <class T = float>
  T* result(const char* name, const Axes& shape) {
    const Array x = contiguous(name, shape);
    need_kind(name, x, holds<T>(x.kind), kind_name<T>());
    writeable(name, x);
    return reinterpret_cast<T*>(x.data);
  }
  // A result whose items of the first axis are contiguous, each `stride` behind the one before: a part of larger items.
  template <class T = float>
  T* result_items(const char* name, const Axes& shape, int64_t* stride) {
    const Array x = read(name);
    match(name, x, shape);
    if (!x.contiguous(1)) fail(name, "must be contiguous but for its first axis");
    need_kind(name, x, holds<T>(x.kind), kind_name<T>());
    writeable(name, x);
    *stride = x.stride[0];
    return reinterpret_cast<T*>(x.data);
  }
  // As it lies, with any strides; `last_contiguous`: but for the last axis.
  Array strided(const char* name, const Axes& shape, bool last_contiguous = false) {
    const Array x = read(name);
    match(name, x, shape);
    if (last_contiguous && x.axes && x.shape[x.axes - 1] > 1 && x.stride[x.axes - 1] != 1 && x.count())
      fail(name, "must be contiguous in its last axis");
    return x;
  }
  View view(const char* name, const Axes& shape);  // of a dtype of DType
  View optional_view(const char* name, const Axes& shape);
  Array read(const char* name);  // unchecked but for its device
  // Arrays of float32, copied where they are not contiguous, which results must be.
  std::vector<Array> list(const char* name, bool results = false);

  bool given(const char* name) const;  // and not None
  template <class T>
  T number(const char* name) {
    return cast<T>(name, "a number");
  }
  bool flag(const char* name) { return cast<bool>(name, "a bool"); }
  template <class E>
  E choice(const char* name, std::initializer_list<std::string_view> names) {
    return static_cast<E>(chosen(name, names));
  }
  template <class T, size_t N>
  void numbers(const char* name, T (&to)[N]) {
    const auto found = cast<std::vector<double>>(name, "a sequence of numbers");
    if (found.size() != N) fail(name, "must hold " + std::to_string(N) + " numbers");
    for (size_t k = 0; k < N; ++k) to[k] = static_cast<T>(found[k]);
  }
  int threads();
  Precision precision();
  void* stream();  // and from here on arrays are on the GPU
  void on_gpu() { on_gpu_ = true; }

  [[noreturn]] void fail(const char* name, const std::string& what) const;
  void need(bool holds, const char* name, const char* what) const {
    if (!holds) fail(name, what);
  }
  void done() const;  // TypeError: a keyword that nobody has read; `threads` every call has

  // Runs the kernel without the lock of Python, unless a result has no elements.
  template <class Kernel, class... Arguments>
  void run(Kernel kernel, const Arguments&... arguments) {
    done();
    if (nothing_) return;
    without_lock([&] { kernel(arguments...); });
  }

 private:
  struct Field {
    std::string_view name;
    py::handle value;
    mutable bool used;
  };
  template <class T>
  static const char* kind_name() {
    if constexpr (std::is_same_v<T, float>) return "float32";
    if constexpr (std::is_same_v<T, double>) return "float64";
    if constexpr (std::is_same_v<T, uint8_t>) return "uint8 or bool";
    if constexpr (std::is_same_v<T, int32_t>) return "int32";
    if constexpr (std::is_same_v<T, uint64_t>) return "uint64";
    return "int64";
  }
  template <class T>
  T cast(const char* name, const char* wanted) {
    const py::handle value = value_of(name);
    try {
      return value.cast<T>();
    } catch (const py::cast_error&) {
      throw py::type_error(std::string(function_) + ": " + name + " must be " + wanted + ", got " +
                           py::repr(value).cast<std::string>());
    }
  }
  Array contiguous(const char* name, const Axes& shape) {
    const Array x = read(name);
    match(name, x, shape);
    if (!x.contiguous()) fail(name, "must be contiguous");
    return x;
  }
  Array read(const char* name, const py::handle& value) const;
  void match(const char* name, const Array& x, const Axes& shape);
  void match_names(const char* name, const Array& x, std::string_view names);
  void need_kind(const char* name, const Array& x, bool holds, const char* wanted) const;
  void writeable(const char* name, const Array& x);
  const Field* find(const char* name) const;
  void mark(const char* name) const;
  py::handle value_of(const char* name) const;
  int chosen(const char* name, std::initializer_list<std::string_view> names);

  const char* function_;
  std::vector<Field> fields_;
  std::vector<std::pair<std::string_view, int64_t>> sizes_;
  std::vector<py::object> copies_;
  bool nothing_ = false, on_gpu_ = false;
};

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

// define(m, "film", [](Fields& f) { … }): a function of keywords.
template <class Body>
void define(py::module_& m, const char* name, Body body) {
  m.def(name, [name, body](const py::kwargs& given) {
    Fields fields(name, given);
    try {
      return body(fields);
    } catch (const std::invalid_argument& e) {  // of a rule that all doors have
      throw py::value_error(std::string(name) + ": " + e.what());
    }
  });
}

}  // namespace fastprompt
