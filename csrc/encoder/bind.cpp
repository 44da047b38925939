#include "bind.h"

#include "encoder/layer.h"

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
}
