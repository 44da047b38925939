#include "bind.h"

#include "metrics/counts.h"

using namespace fastprompt;

namespace {

template <class T>
T* pointer(const py::handle& address) {
  return reinterpret_cast<T*>(address.cast<std::uintptr_t>());
}

}  // namespace

FASTPROMPT_BIND(metrics) {
  m.def("overlap_counts", [](const py::object& pred, int dtype, float threshold, const py::object& target, int ignore,
                             int64_t masks, int64_t pixels, const py::object& out, int threads) {
    const Masks masks_in{pointer<void>(pred), static_cast<DType>(dtype), threshold};
    const OverlapCounts a{masks_in, pointer<uint8_t>(target), ignore, masks, pixels, pointer<int64_t>(out), threads};
    py::gil_scoped_release nogil;
    overlap_counts(a);
  });
  m.def("class_counts", [](const py::object& pred, const py::object& target, int bytes, int64_t pixels, int64_t classes,
                           int64_t ignore, const py::object& out) {
    const ClassCounts a{pointer<void>(pred),  pointer<void>(target), bytes, pixels, classes, ignore,
                        pointer<int64_t>(out)};
    py::gil_scoped_release nogil;
    class_counts(a);
  });
  m.def("pair_counts", [](const py::object& first, const py::object& second, int64_t rows, int64_t columns,
                          int64_t words, const py::object& out, int threads) {
    const PairCounts a{
        pointer<uint64_t>(first), pointer<uint64_t>(second), rows, columns, words, pointer<int64_t>(out), threads};
    py::gil_scoped_release nogil;
    pair_counts(a);
  });
}
