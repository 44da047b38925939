#include "bind.h"

#include "encoder/grid_layer.h"

using namespace fastprompt;

namespace {

// A linear layer; `weight` has the shape (rows, depth) of named axes.
Matrix matrix(Fields& f, const char* weight, const char* bias, const char* shape) {
  Matrix m{};
  m.data = f.array(weight, shape);
  const std::string_view axes(shape);
  const size_t space = axes.find(' ');
  m.rows = f.size(axes.substr(0, space)), m.depth = f.size(axes.substr(space + 1));
  f.need(m.rows > 0 && m.depth > 0 && m.rows % kChannelUnit == 0 && m.depth % kChannelUnit == 0, weight,
         "must have sizes that are multiples of 16");
  m.bias = f.array(bias, {m.rows});
  return m;
}

}  // namespace

FASTPROMPT_BIND(encoder) {
  m.attr("channel_unit") = kChannelUnit;
  define(m, "normalised_linear", [](Fields& f) {
    NormalisedLinear a{};
    a.x = f.array("x", "tokens channels"), a.tokens = f.size("tokens");
    a.norm = {f.optional("norm_weight", "channels"), f.optional("norm_bias", "channels"), f.number<float>("eps")};
    f.need(!a.norm.weight == !a.norm.bias, "norm_bias", "must be given with norm_weight, and only with it");
    a.linear = matrix(f, "weight", "bias", "rows channels");
    a.out = f.result("out", "tokens rows");
    f.run(normalised_linear, a, f.precision(), f.threads());
  });
  define(m, "residual_mlp", [](Fields& f) {
    ResidualMlp a{};
    a.x = f.array("x", "tokens channels"), a.attended = f.array("attended", "tokens width"),
    a.tokens = f.size("tokens");
    a.project = matrix(f, "project_weight", "project_bias", "channels width");
    a.norm = {f.array("norm_weight", "channels"), f.array("norm_bias", "channels"), f.number<float>("eps")};
    a.mlp1 = matrix(f, "mlp1_weight", "mlp1_bias", "hidden channels");
    a.mlp2 = matrix(f, "mlp2_weight", "mlp2_bias", "channels hidden");
    a.activation = f.choice<Activation>("activation", {"gelu", "relu"});
    a.out = f.result("out", "tokens channels");
    f.run(residual_mlp, a, f.precision(), f.threads());
  });
  define(m, "grid_layer", [](Fields& f) {
    GridLayer a{};
    a.x = f.array("x", "images height columns channels");
    f.sizes({{"images", &a.images}, {"height", &a.height}, {"columns", &a.columns}});
    a.norm1 = {f.array("norm1_weight", "channels"), f.array("norm1_bias", "channels"), f.number<float>("eps1")};
    a.qkv = matrix(f, "qkv_weight", "qkv_bias", "rows channels");
    if (f.given("residual_weight")) a.residual = matrix(f, "residual_weight", "residual_bias", "outputs channels");
    a.project = matrix(f, "project_weight", "project_bias", "outputs width");
    f.need(a.qkv.rows == 3 * a.project.depth, "qkv_weight", "must have three rows for every column of project_weight");
    a.norm2 = {f.array("norm2_weight", "outputs"), f.array("norm2_bias", "outputs"), f.number<float>("eps2")};
    a.mlp1 = matrix(f, "mlp1_weight", "mlp1_bias", "hidden outputs");
    a.mlp2 = matrix(f, "mlp2_weight", "mlp2_bias", "outputs hidden");
    a.activation = f.choice<Activation>("activation", {"gelu", "relu"});
    a.heads = f.number<int64_t>("heads"), a.window = f.number<int64_t>("window"), a.pool = f.number<int64_t>("pool");
    constexpr int64_t kMost = 32767;  // places and their distances are 32-bit numbers
    f.need(a.height <= kMost && a.columns <= kMost, "x", "must have at most 32767 rows and columns");
    f.need(a.heads > 0 && a.project.depth % a.heads == 0, "heads", "must divide the columns of project_weight");
    f.need(a.window >= 0 && a.window <= kMost, "window", "must be from 0, none, to 32767");
    f.need(a.pool > 0 && a.pool <= kMost, "pool", "must be from 1 to 32767");
    for (const int64_t n : {a.height, a.columns, a.window})
      f.need(n % a.pool == 0, "pool", "must divide the rows and columns of x, and window");
    f.need(a.residual.data || (a.pool == 1 && a.project.rows == a.qkv.depth), "residual_weight",
           "must be given where queries are pooled, or channels change");
    a.out = f.result("out", {a.images, a.height / a.pool, a.columns / a.pool, a.project.rows});
    a.precision = f.precision(), a.threads = f.threads();
    f.run(grid_layer, a);
  });
}
