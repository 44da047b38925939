// Nodes that bring their kernels: PTX that Triton has compiled ahead of time, and a plan of what is launched. One class
// for all of them; fastprompt.export.tensorrt writes both attributes into the nodes.
#include <limits>

#include "export/tensorrt/driver.h"
#include "export/tensorrt/plan.h"

using namespace nvinfer1;

namespace fastprompt::tensorrt {
namespace {

constexpr char kSeparator[] = "\n// next module\n";
constexpr int64_t kGridX = 2147483647, kGridYZ = 65535;

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> found;
  size_t begin = 0;
  for (size_t end; (end = text.find(kSeparator, begin)) != std::string::npos; begin = end + sizeof(kSeparator) - 1)
    found.push_back(text.substr(begin, end - begin));
  found.push_back(text.substr(begin));
  return found;
}

size_t aligned(int64_t bytes) { return (static_cast<size_t>(bytes) + 255) / 256 * 256; }

class LaunchOperator final : public Operator {
 public:
  explicit LaunchOperator(const Fields& fields) : plan_(fields.text("plan")), ptx_(split(fields.text("ptx"))) {}

  size_t inputs() const override { return plan_.inputs.size(); }
  std::vector<DataType> types() const override {
    std::vector<DataType> found = plan_.inputs;
    for (const Output& o : plan_.outputs) found.push_back(o.type);
    return found;
  }
  void shapes(const DimsExprs* in, DimsExprs* out, IExprBuilder& build) const override {
    for (size_t n = 0; n < plan_.outputs.size(); ++n) {
      const auto& shape = plan_.outputs[n].shape;
      out[n].nbDims = static_cast<int32_t>(shape.size());
      for (size_t k = 0; k < shape.size(); ++k) out[n].d[k] = shape[k].symbol(in, build);
    }
  }
  size_t workspace(const Descriptions& largest) const override {
    size_t bytes = 0;
    for (const Expression& e : plan_.scratch) bytes += aligned(e.value(largest));
    return bytes;
  }
  void prepare(const Descriptions&) override {
    if (!modules_) modules_ = std::make_unique<Modules>(ptx_);
  }

  void enqueue(const Descriptions& in, const void* const* inputs, void* const* outputs, void* workspace,
               cudaStream_t stream) override {
    prepare(in);
    std::vector<char*> scratch;
    char* next = static_cast<char*>(workspace);
    for (const Expression& e : plan_.scratch) {
      scratch.push_back(next);
      next += aligned(e.value(in));
    }
    for (const Launch& launch : plan_.launches) {
      unsigned grid[3];
      for (int k = 0; k < 3; ++k) {
        const int64_t blocks = launch.grid[k].value(in);
        if (blocks == 0) return;  // nothing to compute
        need(blocks > 0 && blocks <= (k ? kGridYZ : kGridX), "the inputs are too large for a launch");
        grid[k] = static_cast<unsigned>(blocks);
      }
      run(launch, grid, in, inputs, outputs, scratch, stream);
    }
  }

 private:
  void run(const Launch& launch, const unsigned (&grid)[3], const Descriptions& in, const void* const* inputs,
           void* const* outputs, const std::vector<char*>& scratch, cudaStream_t stream) {
    union Value {
      const void* pointer;
      int32_t integer;
      float number;
    };
    std::vector<Value> values(launch.arguments.size());
    std::vector<void*> places;
    for (size_t n = 0; n < values.size(); ++n) {
      const Argument& a = launch.arguments[n];
      if (a.kind == 'n') {
        const int64_t value = a.value[0].value(in);
        need(value >= 0 && value <= std::numeric_limits<int32_t>::max(), "a size is over 2^31");
        values[n].integer = static_cast<int32_t>(value);
      } else if (a.kind == 'f') {
        values[n].number = a.number;
      } else {
        values[n].pointer = a.kind == 'i' ? inputs[a.place] : a.kind == 'o' ? outputs[a.place] : scratch[a.place];
      }
      places.push_back(&values[n]);
    }
    modules_->launch(launch.kernel, grid, launch.threads, launch.shared, places.data(), stream);
  }

  const Plan plan_;
  const std::vector<std::string> ptx_;
  std::unique_ptr<Modules> modules_;
};

Kind kind(const char* name) {
  return {name,
          "1.ptx",
          {{"plan", nullptr, PluginFieldType::kCHAR, 0}, {"ptx", nullptr, PluginFieldType::kCHAR, 0}},
          [](const Fields& fields) -> std::unique_ptr<Operator> { return std::make_unique<LaunchOperator>(fields); }};
}

}  // namespace

// Version "1.ptx", not "1": a file that has not been through fastprompt.export.tensorrt keeps its functions.
const std::vector<Kind> kLaunchKinds{kind("CosineScores"), kind("PruneTokens"), kind("PromptToImageAttention"),
                                     kind("ImageToPromptAttention"), kind("RelativePositionAttention")};

}  // namespace fastprompt::tensorrt
