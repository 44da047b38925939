// GeodesicDistance of pictures: the kernels of csrc/geodesic, with their bits.
#include <limits>

#include "export/choose.h"
#include "export/tensorrt/difference.h"
#include "export/tensorrt/plugin.h"
#include "geodesic/check.h"
#include "geodesic/cuda.h"

using namespace nvinfer1;

namespace fastprompt::tensorrt {
namespace {

int64_t count(const Dims& dims) {
  int64_t product = 1;
  for (int32_t n = 0; n < dims.nbDims; ++n) product *= dims.d[n];
  return product;
}

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

class GeodesicOperator final : public Operator {
 public:
  explicit GeodesicOperator(const Fields& fields) {
    std::string kind = fields.text("kind");
    signed_ = kind.rfind("signed_", 0) == 0;
    if (signed_) kind = kind.substr(7);
    a_.two_sided = signed_;
    a_.start_kind = choose<Start>(kind, {"cost", "seed", "nonzero"});
    a_.metric = choose<Metric>(fields.text("metric"), {"fastgeodis", "geodistk", "geodistk_fm"});
    method_ = choose<Method>(fields.text("method"), {"raster", "toivanen", "exact"});
    need(method_ != Method::toivanen, "method 'toivanen' has no kernel for a GPU");
    const int64_t iterations = fields.integer("iterations");
    a_.iterations = iterations == static_cast<int>(iterations) ? static_cast<int>(iterations) : -1;
    a_.grad_weight = fields.number("lam"), a_.step_weight = fields.number("step_weight");
    a_.v = fields.number("v"), a_.limit = fields.number("limit");
    const std::vector<float> spacing = fields.numbers("spacing");
    need(spacing.size() == 2, "spacing must be two numbers: the plugin takes pictures");
    a_.nz = 1, a_.spacing[0] = 1, a_.volume = false;
    for (int k = 0; k < 2; ++k) a_.spacing[k + 1] = spacing[k];
    check_numbers(a_);
  }

  size_t inputs() const override { return 3; }
  std::vector<DataType> types() const override {
    return {DataType::kFLOAT, DataType::kFLOAT, DataType::kBOOL, DataType::kFLOAT};
  }
  void shapes(const DimsExprs* in, DimsExprs* out, IExprBuilder&) const override { out[0] = in[1]; }

  size_t workspace(const Descriptions& in) const override {
    const GeodesicCuda a = sized(in);
    return aligned(4 * ints(a)) + (signed_ ? 4 * 2 * count(in[1].dims) : 0);
  }

  void prepare(const Descriptions& in) override { sized(in); }

  void enqueue(const Descriptions& in, const void* const* inputs, void* const* outputs, void* workspace,
               cudaStream_t stream) override {
    GeodesicCuda a = sized(in);
    if (count(in[1].dims) == 0) return;
    a.image = static_cast<const float*>(inputs[0]);
    a.start = static_cast<const float*>(inputs[1]);
    if (count(in[2].dims) > 1) a.barrier = static_cast<const uint8_t*>(inputs[2]);  // one element: none given
    a.workspace = static_cast<int*>(workspace);
    float* out = static_cast<float*>(outputs[0]);
    float* both = reinterpret_cast<float*>(static_cast<char*>(workspace) + aligned(4 * ints(a)));
    a.out = signed_ ? both : out;
    (method_ == Method::raster ? geodesic_raster_cuda : geodesic_exact_cuda)(a, stream);
    if (signed_) signed_difference(both, out, count(in[1].dims), int64_t(a.ny) * a.nx, stream);
  }

 private:
  int64_t ints(const GeodesicCuda& a) const {
    return method_ == Method::raster ? geodesic_raster_cuda_workspace(a) : geodesic_exact_cuda_workspace(a);
  }

  // The call's struct without its pointers.
  GeodesicCuda sized(const Descriptions& in) const {
    const Dims &image = in.at(0).dims, &start = in.at(1).dims, &walls = in.at(2).dims;
    need(image.nbDims == 5 && start.nbDims == 5 && image.d[0] == start.d[0] && image.d[1] > 0 &&
             image.d[3] == start.d[3] && image.d[4] == start.d[4],
         "image must be (B, C, 1, H, W) and start (B, K, 1, H, W)");
    need(image.d[2] == 1 && start.d[2] == 1, "the plugin takes pictures, of depth 1");
    need(count(walls) == 1 || (walls.nbDims == 5 && walls.d[0] == image.d[0] && walls.d[1] == 1 && walls.d[2] == 1 &&
                               walls.d[3] == image.d[3] && walls.d[4] == image.d[4]),
         "walls must be (B, 1, 1, H, W), or one element for none");
    for (int k = 0; k < 5; ++k)
      need(image.d[k] <= std::numeric_limits<int>::max() && start.d[k] <= std::numeric_limits<int>::max(),
           "image is too large");
    GeodesicCuda a = a_;
    a.batch = static_cast<int>(image.d[0]), a.channels = static_cast<int>(image.d[1]);
    a.sets = static_cast<int>(start.d[1]) * (signed_ ? 2 : 1);
    a.ny = static_cast<int>(image.d[3]), a.nx = static_cast<int>(image.d[4]);
    return a;
  }

  GeodesicCuda a_{};
  Method method_;
  bool signed_;
};

}  // namespace

const std::vector<Kind> kGeodesicKinds{
    {"GeodesicDistance",
     "1",
     {{"kind", nullptr, PluginFieldType::kCHAR, 0},
      {"metric", nullptr, PluginFieldType::kCHAR, 0},
      {"method", nullptr, PluginFieldType::kCHAR, 0},
      {"iterations", nullptr, PluginFieldType::kINT32, 1},
      {"lam", nullptr, PluginFieldType::kFLOAT32, 1},
      {"step_weight", nullptr, PluginFieldType::kFLOAT32, 1},
      {"spacing", nullptr, PluginFieldType::kFLOAT32, 2},
      {"v", nullptr, PluginFieldType::kFLOAT32, 1},
      {"limit", nullptr, PluginFieldType::kFLOAT32, 1}},
     [](const Fields& fields) -> std::unique_ptr<Operator> { return std::make_unique<GeodesicOperator>(fields); }},
};

}  // namespace fastprompt::tensorrt
