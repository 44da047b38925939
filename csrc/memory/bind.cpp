#include "memory/read.h"
#include "bind.h"

using namespace fastprompt;

FASTPROMPT_BIND(memory_read) {
  m.def("memory_read",
        [](const py::tuple& sizes, const py::handle& query, const py::handle& key, const py::handle& value, float scale,
           std::uintptr_t out, std::uintptr_t log_weight, int threads) {
          MemoryRead a{};
          int64_t* fields[] = {&a.images, &a.heads, &a.queries, &a.keys, &a.width, &a.depth};
          for (int n = 0; n < 6; ++n) *fields[n] = sizes[n].cast<int64_t>();
          a.query = floats(query), a.key = floats(key), a.value = floats(value);
          a.scale = scale, a.out = out_floats(out), a.log_weight = out_floats(log_weight), a.threads = threads;
          py::gil_scoped_release nogil;
          memory_read(a);
        });
}
