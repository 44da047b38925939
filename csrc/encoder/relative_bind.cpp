#include <algorithm>

#include "bind.h"
#include "encoder/layer.h"
#include "encoder/relative.h"

using namespace fastprompt;

namespace {

constexpr int64_t kMostSteps = 32767;  // rows or columns of a grid: places and their distances are 32-bit numbers

TokenRows rows(Fields& f, const char* name) {
  const Array x = f.strided(name, "images tokens heads width", true);
  f.need(x.kind == Kind::f32, name, "must hold float32");
  return {reinterpret_cast<const float*>(x.data), x.stride[0], x.stride[1], x.stride[2]};
}

void grid_sizes(Fields& f, RelativeAttention& a) {
  int64_t size[2], window[2] = {0, 0};
  f.numbers("size", size);
  if (f.given("window")) f.numbers("window", window);
  for (const int64_t n : size) f.need(n > 0 && n <= kMostSteps, "size", "must be between 1 and 32767");
  const bool windows = window[0] != 0 || window[1] != 0;
  for (const int64_t n : window)
    f.need(!windows || (n > 0 && n <= kMostSteps), "window", "must be between 1 and 32767, or (0, 0)");
  a.height = size[0], a.columns = size[1], a.window_height = window[0], a.window_columns = window[1];
}

// Tables are of the window, or of the grid; a list of places lies inside the grid.
void grid_fields(Fields& f, RelativeAttention& a) {
  grid_sizes(f, a);
  const bool windows = a.window_height > 0;
  a.rel_h = f.array("rel_h", {2 * (windows ? a.window_height : a.height) - 1, a.width});
  a.rel_w = f.array("rel_w", {2 * (windows ? a.window_columns : a.columns) - 1, a.width});
  a.coordinates = f.optional<int32_t>("coordinates", "lists tokens 2");
  if (!a.coordinates) return f.need(a.tokens == a.height * a.columns, "query", "must hold the tokens of the grid");
  const int64_t lists = f.size("lists");
  f.need(!windows, "window", "must be (0, 0) where there are coordinates");
  f.need(lists == 1 || lists == a.images, "coordinates", "must be of all images or of each");
  a.coordinate_step = lists == 1 ? 0 : 2 * a.tokens;
  for (int64_t n = 0; n < lists * a.tokens; ++n) {
    const int32_t y = a.coordinates[2 * n], x = a.coordinates[2 * n + 1];
    f.need(y >= 0 && y < a.height && x >= 0 && x < a.columns, "coordinates", "must be (row, column) inside the grid");
  }
}

RelativeAttention tokens(Fields& f) {
  RelativeAttention a{};
  a.query = rows(f, "query"), a.key = rows(f, "key"), a.value = rows(f, "value");
  f.sizes({{"images", &a.images}, {"tokens", &a.tokens}, {"heads", &a.heads}, {"width", &a.width}});
  f.need(a.width > 0, "query", "must have a width");
  a.scale = f.number<float>("scale"), a.threads = f.threads();
  return a;
}

RelativeAttention relative(Fields& f) {
  RelativeAttention a = tokens(f);
  f.need(a.width % kChannelUnit == 0, "query", "must have a width that is a multiple of 16");
  grid_fields(f, a);
  return a;
}

void padding(Fields& f, RelativeAttention& a) {
  a.pad_key = f.optional("pad_key", "heads width"), a.pad_value = f.optional("pad_value", "heads width");
  const bool whole = a.window_height == 0 || (a.height % a.window_height == 0 && a.columns % a.window_columns == 0);
  f.need(whole || (a.pad_key && a.pad_value), "pad_key", "and pad_value must be given: windows do not divide the grid");
}

}  // namespace

FASTPROMPT_BIND(relative_attention) {
  define(m, "relative_attention", [](Fields& f) {
    RelativeAttention a = relative(f);
    padding(f, a);
    a.out = f.result("out", "images tokens heads width");
    a.log_weight = f.result("log_weight", "images heads tokens"), a.precision = f.precision();
    f.run(relative_attention, a);
  });
  define(m, "grid_attention", [](Fields& f) {
    RelativeAttention a = tokens(f);
    grid_sizes(f, a);
    f.need(a.tokens == a.height * a.columns, "query", "must hold the tokens of the grid");
    padding(f, a);
    a.pool = f.number<int64_t>("pool");
    f.need(a.pool > 0 && a.pool <= kMostSteps, "pool", "must be positive");
    for (const int64_t n : {a.height, a.columns, a.window_height, a.window_columns})
      f.need(n % a.pool == 0, "pool", "must divide size and window");
    f.name("pooled", a.out_tokens());
    a.out = f.result("out", "images pooled heads width"), a.precision = f.precision();
    f.run(relative_attention, a);
  });
  define(m, "relative_attention_backward", [](Fields& f) {
    RelativeGradient g{};
    g.forward = relative(f);
    const RelativeAttention& a = g.forward;
    f.need(a.window_height == 0, "window", "must be (0, 0): windows have no gradient");
    g.forward.out = const_cast<float*>(f.array("out", "images tokens heads width"));
    g.forward.log_weight = const_cast<float*>(f.array("log_weight", "images heads tokens"));
    g.out_grad = f.array("grad", "images tokens heads width");
    g.query_grad = f.result("query_grad", "images tokens heads width");
    g.key_grad = f.result("key_grad", "images tokens heads width");
    g.value_grad = f.result("value_grad", "images tokens heads width");
    const int64_t h = 2 * a.height - 1, w = 2 * a.columns - 1;
    g.rel_h_grad = f.result("rel_h_grad", {h, a.width}), g.rel_w_grad = f.result("rel_w_grad", {w, a.width});
    if (a.images * a.tokens * a.heads == 0)  // nothing runs, but the tables have a gradient all the same
      std::fill_n(g.rel_h_grad, h * a.width, 0.f), std::fill_n(g.rel_w_grad, w * a.width, 0.f);
    f.run(relative_gradient, g);
  });
}
