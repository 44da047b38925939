#include "bind.h"

#include "pruning/merge.h"
#include "pruning/rows.h"
#include "pruning/score.h"
#include "pruning/select.h"

using namespace fastprompt;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// (address, rows, stride of an image, stride of a row), in bytes
Rows rows(const py::tuple& t) {
  return {
      pointer<char>(t[0].cast<std::uintptr_t>()), t[1].cast<int64_t>(), {t[2].cast<int64_t>(), t[3].cast<int64_t>()}};
}

}  // namespace

FASTPROMPT_BIND(pruning) {
  m.def("gather_rows", [](int64_t batch, int64_t bytes, const py::tuple& from, std::uintptr_t index,
                          const py::tuple& out, int threads) {
    const GatherRows a{batch, bytes, rows(from), pointer<int64_t>(index), rows(out), threads};
    py::gil_scoped_release nogil;
    gather_rows(a);
  });
  m.def("scatter_rows", [](int64_t batch, int64_t bytes, const py::tuple& base, const py::tuple& from,
                           std::uintptr_t index, const py::tuple& out, int threads) {
    const ScatterRows a{batch, bytes, rows(base), rows(from), pointer<int64_t>(index), rows(out), threads};
    py::gil_scoped_release nogil;
    scatter_rows(a);
  });
  // Selects and copies; returns what select_tokens does.
  m.def("prune_tokens", [](int64_t count, double background, int64_t bytes, const py::tuple& tokens,
                           std::uintptr_t scores, std::uintptr_t always, std::uintptr_t counts, int64_t batch,
                           std::uintptr_t index, std::uintptr_t out, int threads) {
    const Rows from = rows(tokens);
    SelectTokens a{};
    a.batch = batch, a.tokens = from.count, a.count = count, a.background = background, a.threads = threads;
    a.scores = pointer<float>(scores), a.always = pointer<uint8_t>(always), a.counts = pointer<int64_t>(counts);
    a.index = pointer<int64_t>(index);
    const Rows to{pointer<char>(out), count, {count * bytes, bytes}};
    py::gil_scoped_release nogil;
    const int64_t bad = select_tokens(a);
    if (bad < 0) gather_rows({batch, bytes, from, a.index, to, threads});
    return bad;
  });
  m.def("cosine_scores", [](const py::tuple& sizes, std::uintptr_t data, std::uintptr_t prompt, std::uintptr_t out,
                            int threads) {
    CosineScores a{};
    int64_t* fields[] = {&a.batch, &a.tokens, &a.channels, &a.prompts, &a.stride[0], &a.stride[1], &a.prompt_images};
    for (int k = 0; k < 7; ++k) *fields[k] = sizes[k].cast<int64_t>();
    a.data = pointer<float>(data), a.prompt = pointer<float>(prompt), a.out = pointer<float>(out);
    a.threads = threads;
    py::gil_scoped_release nogil;
    cosine_scores(a);
  });
  m.def("match_tokens",
        [](const py::tuple& sizes, std::uintptr_t metric, std::uintptr_t kept, std::uintptr_t target, int threads) {
          MatchTokens a{};
          int64_t* fields[] = {&a.batch, &a.tokens, &a.width, &a.merged, &a.spared};
          for (int k = 0; k < 5; ++k) *fields[k] = sizes[k].cast<int64_t>();
          a.metric = pointer<float>(metric), a.kept = pointer<int64_t>(kept), a.target = pointer<int64_t>(target);
          a.threads = threads;
          py::gil_scoped_release nogil;
          match_tokens(a);
        });
  m.def("merge_rows", [](const py::tuple& sizes, std::uintptr_t data, std::uintptr_t size, std::uintptr_t kept,
                         std::uintptr_t target, std::uintptr_t out, int threads) {
    MergeRows a{};
    int64_t* fields[] = {&a.batch, &a.tokens, &a.merged, &a.channels};
    for (int k = 0; k < 4; ++k) *fields[k] = sizes[k].cast<int64_t>();
    a.data = pointer<float>(data), a.size = pointer<float>(size), a.out = pointer<float>(out);
    a.kept = pointer<int64_t>(kept), a.target = pointer<int64_t>(target);
    a.threads = threads;
    py::gil_scoped_release nogil;
    merge_rows(a);
  });
}
