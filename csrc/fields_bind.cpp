#include <algorithm>
#include <cctype>

#include "bind.h"
#include "common/sizes.h"

namespace fastprompt {
namespace {

py::object owned(PyObject* x) {
  if (!x) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(x);
}

struct TorchType {
  PyObject* dtype;
  Kind kind;
  int64_t item;
};

// torch's dtypes are objects that live as long as the process: each is looked at once.
TorchType torch_type(const py::handle& x) {
  static std::vector<TorchType> known;  // guarded by the lock of Python
  static PyObject* const name_of_dtype = PyUnicode_InternFromString("dtype");
  const py::object dtype = owned(PyObject_GetAttr(x.ptr(), name_of_dtype));
  for (const TorchType& type : known)
    if (type.dtype == dtype.ptr()) return type;
  const std::string name = py::str(dtype);
  const std::pair<const char*, Kind> names[] = {
      {"torch.float32", Kind::f32}, {"torch.float16", Kind::f16},  {"torch.bfloat16", Kind::bf16},
      {"torch.uint8", Kind::u8},    {"torch.bool", Kind::boolean}, {"torch.int32", Kind::i32},
      {"torch.int64", Kind::i64},   {"torch.float64", Kind::f64},  {"torch.uint64", Kind::u64}};
  Kind found = Kind::other;
  for (const auto& [text, kind] : names)
    if (name == text) found = kind;
  known.push_back({dtype.inc_ref().ptr(), found, x.attr("element_size")().cast<int64_t>()});
  return known.back();
}

Kind numpy_kind(const py::dtype& dtype) {
  if (dtype.byteorder() != '=' && dtype.byteorder() != '|') return Kind::other;
  const char kind = dtype.kind();
  const auto item = dtype.itemsize();
  if (kind == 'f') return item == 4 ? Kind::f32 : item == 8 ? Kind::f64 : item == 2 ? Kind::f16 : Kind::other;
  if (kind == 'i') return item == 8 ? Kind::i64 : item == 4 ? Kind::i32 : Kind::other;
  if (kind == 'u') return item == 1 ? Kind::u8 : item == 8 ? Kind::u64 : Kind::other;
  if (kind == 'b') return Kind::boolean;
  if (item == 2 && dtype.attr("name").cast<std::string>() == "bfloat16") return Kind::bf16;  // of ml_dtypes
  return Kind::other;
}

Array of_numpy(const py::array& x) {
  Array a;
  a.data = const_cast<char*>(static_cast<const char*>(x.data()));
  const py::dtype dtype = x.dtype();
  a.kind = numpy_kind(dtype), a.axes = static_cast<int>(std::min<py::ssize_t>(x.ndim(), Array::kMostAxes + 1));
  a.writeable = x.writeable();
  const int64_t item = dtype.itemsize();
  const char letter = dtype.kind();
  a.item = (letter == 'O' || letter == 'V') && dtype.attr("hasobject").cast<bool>() ? 0 : item;
  for (int k = 0; k < std::min(a.axes, Array::kMostAxes); ++k) {
    a.shape[k] = x.shape(k), a.stride[k] = item ? x.strides(k) / item : 0;
    if (item && x.strides(k) % item && a.shape[k] > 1) a.kind = Kind::other, a.item = 0;  // a field of packed records
  }
  if (item && reinterpret_cast<std::uintptr_t>(a.data) % std::min<int64_t>(item, 8)) a.kind = Kind::other;
  return a;
}

// `sizes` of a tuple of ints.
void sizes_of(const py::object& tuple, int64_t* to, int axes) {
  for (int k = 0; k < axes; ++k) to[k] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), k));
}

// A click passes a hundred weights: names are interned, and strides asked for only where they are not known.
struct Names {
  PyObject* data_ptr = PyUnicode_InternFromString("data_ptr");
  PyObject* shape = PyUnicode_InternFromString("shape");
  PyObject* is_contiguous = PyUnicode_InternFromString("is_contiguous");
  PyObject* stride = PyUnicode_InternFromString("stride");
  PyObject* is_cpu = PyUnicode_InternFromString("is_cpu");
};

// false: `x` is no tensor.
bool of_torch(const py::handle& x, Array& a) {
  static const Names names;
  PyObject* address = PyObject_CallMethodNoArgs(x.ptr(), names.data_ptr);
  if (!address && PyErr_ExceptionMatches(PyExc_AttributeError)) return PyErr_Clear(), false;
  a.data = static_cast<char*>(PyLong_AsVoidPtr(owned(address).ptr()));
  const py::object shape = owned(PyObject_GetAttr(x.ptr(), names.shape));
  a.axes = static_cast<int>(std::min<py::ssize_t>(PyTuple_GET_SIZE(shape.ptr()), Array::kMostAxes + 1));
  const int axes = std::min(a.axes, Array::kMostAxes);
  sizes_of(shape, a.shape, axes);
  if (owned(PyObject_CallMethodNoArgs(x.ptr(), names.is_contiguous)).ptr() == Py_True) {
    uint64_t step = 1;  // of an empty tensor it may wrap
    for (int k = axes - 1; k >= 0; --k)
      a.stride[k] = static_cast<int64_t>(step), step *= static_cast<uint64_t>(std::max<int64_t>(a.shape[k], 1));
  } else {
    sizes_of(owned(PyObject_CallMethodNoArgs(x.ptr(), names.stride)), a.stride, axes);
  }
  const TorchType type = torch_type(x);
  a.kind = type.kind, a.item = type.item;
  if (reinterpret_cast<std::uintptr_t>(a.data) % static_cast<std::uintptr_t>(std::min<int64_t>(a.item, 8)))
    a.kind = Kind::other;
  a.on_gpu = owned(PyObject_GetAttr(x.ptr(), names.is_cpu)).ptr() != Py_True;
  return true;
}

std::string list_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t k = 0; k < shape.size(); ++k) text += (k ? ", " : "") + std::to_string(shape[k]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

const char* kind_text(Kind kind) {
  const char* names[] = {"float32", "float16", "bfloat16", "uint8", "bool", "int32", "int64", "float64", "uint64"};
  return kind == Kind::other ? "another dtype or byte order, or is not aligned" : names[static_cast<int>(kind)];
}

}  // namespace

int64_t Array::count() const {
  int64_t n = 1;
  for (int k = 0; k < axes; ++k) n *= shape[k];
  return n;
}

bool Array::contiguous(int from) const {
  int64_t step = count() ? 1 : 0;
  for (int k = axes - 1; k >= from && step; --k) {
    if (shape[k] > 1 && stride[k] != step) return false;
    step *= shape[k];
  }
  return true;
}

std::string Array::shape_text() const { return list_text({shape, shape + std::min(axes, kMostAxes)}); }

Fields::Fields(const char* function, const py::kwargs& given) : function_(function) {
  fields_.reserve(given.size()), sizes_.reserve(8);
  for (const auto& [name, value] : given) {
    Py_ssize_t length = 0;
    const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &length);
    fields_.push_back({{text, static_cast<size_t>(length)}, value, false});
  }
}

void Fields::fail(const char* name, const std::string& what) const {
  throw py::value_error(std::string(function_) + ": " + name + " " + what);
}

const Fields::Field* Fields::find(const char* name) const {
  const std::string_view wanted(name);
  for (const Field& f : fields_)
    if (f.name == wanted) return &f;
  return nullptr;
}

bool Fields::given(const char* name) const {
  const Field* f = find(name);
  return f && !f->value.is_none();
}

void Fields::mark(const char* name) const {
  if (const Field* f = find(name)) f->used = true;
}

py::handle Fields::value_of(const char* name) const {
  const Field* f = find(name);
  if (!f) throw py::type_error(std::string(function_) + ": " + name + " is missing");
  f->used = true;
  return f->value;
}

void Fields::done() const {
  for (const Field& f : fields_)
    if (!f.used && f.name != "threads")
      throw py::type_error(std::string(function_) + ": there is no field " + std::string(f.name));
}

int64_t Fields::size(std::string_view axis) const {
  for (const auto& [name, n] : sizes_)
    if (name == axis) return n;
  throw std::logic_error(std::string(function_) + ": no array has an axis " + std::string(axis));
}

void Fields::sizes(std::initializer_list<std::pair<std::string_view, int64_t*>> fields) const {
  for (const auto& [axis, to] : fields) *to = size(axis);
}

Array Fields::read(const char* name) { return read(name, value_of(name)); }

Array Fields::read(const char* name, const py::handle& value) const {
  Array x;
  if (py::isinstance<py::array>(value)) {
    x = of_numpy(py::reinterpret_borrow<py::array>(value));
  } else if (!of_torch(value, x)) {
    throw py::type_error(std::string(function_) + ": " + name + " must be an array or a tensor, got " +
                         py::str(py::type::handle_of(value)).cast<std::string>());
  }
  if (x.axes > Array::kMostAxes) fail(name, "must have at most 8 axes");
  if (!has_fair_sizes(x.shape, x.axes)) fail(name, "is too large: it has shape " + x.shape_text());
  if (x.on_gpu != on_gpu_) fail(name, on_gpu_ ? "must be on the GPU" : "must be in the memory of the CPU");
  return x;
}

void Fields::match_names(const char* name, const Array& x, std::string_view shape) {
  const auto fits = [&](auto&& visit) {
    int k = 0;
    for (size_t at = 0; at < shape.size(); ++k) {
      const size_t end = std::min(shape.find(' ', at), shape.size());
      if (!visit(k, shape.substr(at, end - at))) return false;
      at = end + 1;
    }
    return k == x.axes;
  };
  const size_t before = sizes_.size();
  const bool agrees = fits([&](int k, std::string_view axis) {
    if (k >= x.axes) return false;
    if (std::isdigit(static_cast<unsigned char>(axis[0]))) return x.shape[k] == std::stoll(std::string(axis));
    for (const auto& [known, n] : sizes_)
      if (known == axis) return x.shape[k] == n;
    sizes_.emplace_back(axis, x.shape[k]);
    return true;
  });
  if (agrees) return;
  sizes_.resize(before);
  std::string wanted;
  fits([&](int, std::string_view axis) {
    wanted += (wanted.empty() ? "" : ", ") + std::string(axis);
    for (const auto& [known, n] : sizes_)
      if (known == axis) wanted += " = " + std::to_string(n);
    return true;
  });
  fail(name, "must have shape (" + wanted + "), got " + x.shape_text());
}

void Fields::match(const char* name, const Array& x, const Axes& shape) {
  if (!shape.names.empty()) return match_names(name, x, shape.names);
  const auto& sizes = shape.sizes;
  const bool fits = x.axes == static_cast<int>(sizes.size()) && std::equal(sizes.begin(), sizes.end(), x.shape);
  if (!fits) fail(name, "must have shape " + list_text(sizes) + ", got " + x.shape_text());
}

void Fields::need_kind(const char* name, const Array& x, bool holds, const char* wanted) const {
  if (!holds)
    throw py::type_error(std::string(function_) + ": " + name + " must hold " + wanted + ", got " + kind_text(x.kind));
}

void Fields::writeable(const char* name, const Array& x) {
  if (!x.writeable) fail(name, "must be writeable");
  nothing_ = nothing_ || x.count() == 0;
}

View Fields::view(const char* name, const Axes& shape) {
  const Array x = strided(name, shape);
  need(x.axes == 5, name, "must have five axes");
  View v;
  v.data = x.data;
  switch (x.kind) {
    case Kind::f32:
      v.dtype = DType::f32;
      break;
    case Kind::f16:
      v.dtype = DType::f16;
      break;
    case Kind::bf16:
      v.dtype = DType::bf16;
      break;
    case Kind::u8:
    case Kind::boolean:
      v.dtype = DType::u8;
      break;
    default:
      need_kind(name, x, false, "float32, float16, bfloat16, uint8 or bool");
  }
  std::copy(x.stride, x.stride + 5, v.stride);
  return v;
}

View Fields::optional_view(const char* name, const Axes& shape) {
  return given(name) ? view(name, shape) : (mark(name), View{});
}

std::vector<Array> Fields::list(const char* name, bool results) {
  std::vector<Array> found;
  for (const auto& item : cast<py::sequence>(name, "a sequence of arrays")) {
    Array x = read(name, item);
    if (!results && !x.contiguous()) {
      const bool tensor = py::hasattr(item, "contiguous");
      copies_.push_back(tensor ? item.attr("contiguous")()
                               : py::module_::import("numpy").attr("ascontiguousarray")(item));
      x = read(name, copies_.back());
    }
    if (x.kind != Kind::f32 || !x.contiguous()) fail(name, "must hold contiguous arrays of float32");
    found.push_back(x);
  }
  return found;
}

int Fields::chosen(const char* name, std::initializer_list<std::string_view> names) {
  const auto text = cast<std::string>(name, "a text");
  const auto at = std::find(names.begin(), names.end(), text);
  if (at != names.end()) return static_cast<int>(at - names.begin());
  std::string known;
  for (const auto& n : names) known += (known.empty() ? "" : ", ") + std::string(n);
  fail(name, "must be one of " + known + ", got '" + text + "'");
}

int Fields::threads() {
  const int n = number<int>("threads");
  need(n > 0, "threads", "must be positive");
  return std::min(n, 1 << 16);  // numbers are made of it
}

Precision Fields::precision() {
  const int n = number<int>("precision");
  need(n >= 0 && n < 3, "precision", "must be 0, 1 or 2");
  return static_cast<Precision>(n);
}

void* Fields::stream() {
  on_gpu_ = true;
  return reinterpret_cast<void*>(number<std::uintptr_t>("stream"));
}

}  // namespace fastprompt
