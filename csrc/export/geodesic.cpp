// Distance maps of an exported model.
#include "geodesic/geodesic.h"

#include <algorithm>

#include "export/choose.h"
#include "export/node.h"
#include "geodesic/euclidean.h"

namespace fastprompt {
namespace {

View view(const void* data, DType dtype, const Sizes& shape, const Sizes& whole) {
  View v{data, dtype, {}};
  int64_t step = 1;
  for (int k = 4; k >= 0; --k) {
    v.stride[k] = shape[k] == 1 && whole[k] != 1 ? 0 : step;
    step *= shape[k];
  }
  return v;
}

void euclidean(Node& node) {
  const Sizes shape = node.input(0).shape;
  need(shape.size() == 5 && shape[1] == 1, "mask must be (B, 1, D, H, W)");
  const auto& spacing = node.attributes.float_lists.at("spacing");
  need(spacing.size() == 3, "spacing must be three numbers");
  EuclideanTransform a{};
  a.mask = view(node.bytes(0), DType::u8, shape, shape);
  a.batch = shape[0], a.nz = shape[2], a.ny = shape[3], a.nx = shape[4];
  std::copy_n(spacing.begin(), 3, a.spacing);
  a.threads = node.threads;
  a.out = node.float_output(0, shape);
  euclidean_distance_transform(a);
}

void geodesic(Node& node) {
  const Sizes image = node.input(0).shape, start = node.input(1).shape;
  const Attributes& o = node.attributes;
  need(image.size() == 5 && start.size() == 5 && image[0] == start[0] && image[1] > 0 &&
           std::equal(image.begin() + 2, image.end(), start.begin() + 2),
       "image must be (B, C, D, H, W) and start (B, K, D, H, W)");
  const Sizes wall = node.input(2).shape, walls{image[0], 1, image[2], image[3], image[4]};
  std::string kind = o.texts.at("kind");
  Geodesic a{};
  a.two_sided = kind.rfind("signed_", 0) == 0;
  if (a.two_sided) kind = kind.substr(7);
  a.start_kind = choose<Start>(kind, {"cost", "seed", "nonzero"});
  a.metric = choose<Metric>(o.texts.at("metric"), {"fastgeodis", "geodistk", "geodistk_fm"});
  a.method = choose<Method>(o.texts.at("method"), {"raster", "toivanen", "exact"});
  a.batch = image[0], a.channels = image[1], a.sets = start[1], a.nz = image[2], a.ny = image[3], a.nx = image[4];
  a.image = view(node.floats(0), DType::f32, image, image);
  a.start = view(node.floats(1), DType::f32, start, start);
  if (node.input(2).count() != 1) {
    need(wall == walls, "walls must be (B, 1, D, H, W)");
    a.barrier = view(node.bytes(2), DType::u8, wall, wall);
  }
  const auto& spacing = o.float_lists.at("spacing");
  need(spacing.size() == 2 || spacing.size() == 3, "spacing must be two or three numbers");
  a.volume = spacing.size() == 3;
  need(a.volume || a.nz == 1, "a volume needs three numbers of spacing");
  for (int k = 0; k < 3; ++k) a.spacing[k] = a.volume ? spacing[k] : k ? spacing[k - 1] : 1.0f;
  a.iterations = static_cast<int>(o.size("iterations"));
  a.grad_weight = o.floats.at("lam"), a.step_weight = o.floats.at("step_weight");
  a.v = o.floats.at("v"), a.limit = o.floats.at("limit"), a.threads = node.threads;
  a.out = node.float_output(0, start);
  a.two_sided ? signed_geodesic_distance(a) : geodesic_distance(a);
}

template <size_t n>
std::vector<Sizes> like(const Known& k) {
  return {k.axes(n, {0, 1, 2, 3, 4})};
}

}  // namespace

FASTPROMPT_NODES(geodesic){
    {"EuclideanDistanceTransform", "a", "f", "spacing:F", euclidean, like<0>},
    {"GeodesicDistance", "aaa", "f", "kind:s metric:s method:s iterations:i lam:f step_weight:f spacing:F v:f limit:f",
     geodesic, like<1>},
};

}  // namespace fastprompt
