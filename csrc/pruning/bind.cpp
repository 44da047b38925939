#include "bind.h"

#include <algorithm>

#include "pruning/merge.h"
#include "pruning/rows.h"
#include "pruning/score.h"
#include "pruning/select.h"

using namespace fastprompt;

namespace {

// (images, rows, channels), the channels of a row side by side.
Array whole_rows(Fields& f, const char* name, const char* shape) {
  const Array x = f.strided(name, shape);
  f.need(x.shape[2] <= 1 || x.stride[2] == 1 || x.count() == 0, name, "must be contiguous in its last axis");
  return x;
}

// Rows of any dtype, which are moved byte by byte; `like` is of the same.
Rows rows(Fields& f, const char* name, const char* shape, const Array& like, bool written = false) {
  const Array x = whole_rows(f, name, shape);
  f.need(x.item > 0, name, "must hold numbers, at strides of whole numbers");
  const bool known = x.kind != Kind::other && like.kind != Kind::other;
  f.need(x.item == like.item && (x.kind == like.kind || !known), name, "must have the dtype of the rows");
  f.need(x.writeable || !written, name, "must be writeable");
  return {x.data, x.shape[1], {x.stride[0] * x.item, x.stride[1] * x.item}};
}

}  // namespace

FASTPROMPT_BIND(pruning) {
  define(m, "gather_rows", [](Fields& f) {
    const Array x = f.read("rows");
    GatherRows a{};
    a.from = rows(f, "rows", "batch rows channels", x);
    a.index = f.array<int64_t>("index", "batch kept");
    a.out = rows(f, "out", "batch kept channels", x, true);
    a.batch = f.size("batch"), a.bytes = f.size("channels") * x.item, a.threads = f.threads();
    f.run(gather_rows, a);
  });
  define(m, "scatter_rows", [](Fields& f) {
    const Array x = f.read("rows");
    ScatterRows a{};
    a.from = rows(f, "rows", "batch kept channels", x);
    a.index = f.array<int64_t>("index", "batch kept");
    a.out = rows(f, "out", "batch rows channels", x, true);
    if (f.given("base"))
      a.base = rows(f, "base", "batch rows channels", x);
    else
      f.optional<char>("base", "");
    a.batch = f.size("batch"), a.bytes = f.size("channels") * x.item, a.threads = f.threads();
    f.run(scatter_rows, a);
  });
  // Selects and copies; returns what select_tokens does.
  define(m, "prune_tokens", [](Fields& f) {
    const Array x = f.read("tokens");
    GatherRows g{};
    SelectTokens a{};
    g.from = rows(f, "tokens", "batch tokens channels", x);
    a.scores = f.array("scores", "batch tokens"), a.always = f.optional<uint8_t>("always", "batch tokens");
    a.counts = f.optional<int64_t>("counts", "batch"), a.index = f.result<int64_t>("index", "batch kept");
    g.out = rows(f, "out", "batch kept channels", x, true);
    f.sizes({{"batch", &a.batch}, {"tokens", &a.tokens}, {"kept", &a.count}});
    a.background = f.number<double>("background");
    f.need(a.background >= 0 && a.background < 2, "background", "must be a share");  // a share of 1, rounded up, is one
    a.threads = f.threads();
    g.batch = a.batch, g.bytes = f.size("channels") * x.item, g.index = a.index, g.threads = a.threads;
    int64_t bad = -1;
    f.run([&] {
      bad = select_tokens(a);
      if (bad < 0) gather_rows(g);
    });
    if (bad < 0) return;
    const uint8_t* marks = a.always + bad * a.tokens;
    const auto marked = a.tokens - std::count(marks, marks + a.tokens, uint8_t{0});
    throw py::value_error("always_keep must mark at most the tokens that are kept, got " + std::to_string(marked) +
                          " in image " + std::to_string(bad));
  });
  define(m, "cosine_scores", [](Fields& f) {
    CosineScores a{};
    const Array x = whole_rows(f, "tokens", "batch tokens channels");
    f.need(x.kind == Kind::f32, "tokens", "must hold float32");
    a.data = reinterpret_cast<const float*>(x.data), a.stride[0] = x.stride[0], a.stride[1] = x.stride[1];
    a.prompt = f.array("prompts", "prompt_images prompts channels");
    f.sizes({{"batch", &a.batch}, {"tokens", &a.tokens}, {"channels", &a.channels}});
    f.sizes({{"prompts", &a.prompts}, {"prompt_images", &a.prompt_images}});
    f.need(a.prompt_images == 1 || a.prompt_images == a.batch, "prompts", "must be of one image or of each");
    a.out = f.result("out", "batch tokens"), a.threads = f.threads();
    f.run(cosine_scores, a);
  });
  define(m, "match_tokens", [](Fields& f) {
    MatchTokens a{};
    a.metric = f.array("metric", "batch tokens width");
    f.sizes({{"batch", &a.batch}, {"tokens", &a.tokens}, {"width", &a.width}});
    a.merged = f.number<int64_t>("merged"), a.spared = f.number<int64_t>("spared");
    f.need(a.spared >= 0 && a.spared <= a.tokens, "spared", "must be a number of tokens");
    f.need(a.merged >= 0 && a.merged <= (a.tokens - a.spared) / 2, "merged", "must be at most (N - spared) // 2");
    a.kept = f.result<int64_t>("kept", {a.batch, a.tokens - a.merged});
    a.target = f.result<int64_t>("target", "batch tokens"), a.threads = f.threads();
    f.run(match_tokens, a);
  });
  define(m, "merge_rows", [](Fields& f) {
    MergeRows a{};
    a.data = f.array("tokens", "batch tokens channels"), a.size = f.array("size", "batch tokens");
    a.kept = f.array<int64_t>("kept", "batch kept"), a.target = f.array<int64_t>("target", "batch tokens");
    f.sizes({{"batch", &a.batch}, {"tokens", &a.tokens}, {"channels", &a.channels}});
    const int64_t kept = f.size("kept");
    a.merged = a.tokens - kept;
    f.need(a.merged >= 0, "kept", "must not hold more than the tokens");
    const auto all = [&](const int64_t* index, int64_t count, int64_t rows) {
      return std::all_of(index, index + a.batch * count, [=](int64_t n) { return n >= 0 && n < rows; });
    };
    f.need(all(a.kept, kept, a.tokens), "kept", "must be rows of the tokens");
    f.need(all(a.target, a.tokens, kept), "target", "must be rows of the merged tokens");
    a.out = f.result("out", "batch kept channels"), a.threads = f.threads();
    f.run(merge_rows, a);
  });
}
