#include "export/tensorrt/plugin.h"

#include <exception>

using namespace nvinfer1;

namespace fastprompt::tensorrt {
namespace {

ILoggerFinder* logger_finder = nullptr;

// TensorRT's interfaces know no exceptions: 0, or 1 after a line in its log.
template <class Act>
int32_t status_of(const Act& act) {
  try {
    act();
    return 0;
  } catch (const std::exception& error) {
    log_error(error.what());
    return 1;
  }
}

class Plugin final : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
 public:
  Plugin(const Kind& kind, const Fields& fields) : kind_(kind), fields_(fields), operator_(kind.make(fields)) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    if (type == PluginCapabilityType::kBUILD) return static_cast<IPluginV3OneBuild*>(this);
    if (type == PluginCapabilityType::kRUNTIME) return static_cast<IPluginV3OneRuntime*>(this);
    return static_cast<IPluginV3OneCore*>(this);
  }
  IPluginV3* clone() noexcept override {
    Plugin* made = nullptr;
    status_of([&] { made = new Plugin(kind_, fields_); });
    return made;
  }

  const AsciiChar* getPluginName() const noexcept override { return kind_.name; }
  const AsciiChar* getPluginVersion() const noexcept override { return kind_.version; }
  const AsciiChar* getPluginNamespace() const noexcept override { return kNamespace; }

  // ---------------------------------------------------------------- build

  int32_t getNbOutputs() const noexcept override {
    return static_cast<int32_t>(operator_->types().size() - operator_->inputs());
  }
  int32_t getOutputDataTypes(DataType* out, int32_t count, const DataType*, int32_t) const noexcept override {
    return status_of([&] {
      const auto types = operator_->types();
      for (int32_t n = 0; n < count; ++n) out[n] = types.at(operator_->inputs() + n);
    });
  }
  int32_t getOutputShapes(const DimsExprs* in, int32_t count, const DimsExprs*, int32_t, DimsExprs* out, int32_t,
                          IExprBuilder& build) noexcept override {
    return status_of([&] {
      need(count == static_cast<int32_t>(operator_->inputs()), "another number of inputs was given");
      operator_->shapes(in, out, build);
    });
  }
  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* io, int32_t,
                                 int32_t) noexcept override {
    const PluginTensorDesc& desc = io[position].desc;
    const auto types = operator_->types();
    return position < static_cast<int32_t>(types.size()) && desc.type == types[position] &&
           desc.format == TensorFormat::kLINEAR;
  }
  int32_t configurePlugin(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return 0;
  }
  size_t getWorkspaceSize(const DynamicPluginTensorDesc* in, int32_t count, const DynamicPluginTensorDesc*,
                          int32_t) const noexcept override {
    size_t bytes = 0;
    status_of([&] {
      Descriptions largest;
      for (int32_t n = 0; n < count; ++n) {
        largest.push_back(in[n].desc);
        largest.back().dims = in[n].max;
      }
      bytes = operator_->workspace(largest);
    });
    return bytes;
  }

  // ---------------------------------------------------------------- runtime

  int32_t onShapeChange(const PluginTensorDesc* in, int32_t count, const PluginTensorDesc*, int32_t) noexcept override {
    return status_of([&] { operator_->prepare(inputs_ = Descriptions(in, in + count)); });
  }
  int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc*, const void* const* inputs, void* const* outputs,
                  void* workspace, cudaStream_t stream) noexcept override {
    return status_of([&] {
      inputs_.assign(in, in + operator_->inputs());
      operator_->enqueue(inputs_, inputs, outputs, workspace, stream);
    });
  }
  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }
  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    list_ = fields_.collection();
    collection_ = {static_cast<int32_t>(list_.size()), list_.data()};
    return &collection_;
  }

 private:
  const Kind& kind_;
  const Fields fields_;
  const std::unique_ptr<Operator> operator_;
  Descriptions inputs_;
  std::vector<PluginField> list_;
  PluginFieldCollection collection_{};
};

class Creator final : public IPluginCreatorV3One {
 public:
  explicit Creator(const Kind& kind)
      : kind_(kind), collection_{static_cast<int32_t>(kind.fields.size()), kind.fields.data()} {}

  IPluginV3* createPlugin(const AsciiChar* name, const PluginFieldCollection* given, TensorRTPhase) noexcept override {
    IPluginV3* made = nullptr;
    try {
      made = new Plugin(kind_, given ? Fields(*given) : Fields());
    } catch (const std::exception& error) {
      log_error(std::string(kind_.name) + " " + (name ? name : "") + ": " + error.what());
    }
    return made;
  }
  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const AsciiChar* getPluginName() const noexcept override { return kind_.name; }
  const AsciiChar* getPluginVersion() const noexcept override { return kind_.version; }
  const AsciiChar* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  const Kind& kind_;
  const PluginFieldCollection collection_;
};

}  // namespace

IPluginCreatorInterface* new_creator(const Kind& kind) { return new Creator(kind); }

void log_error(const std::string& text) {
  ILogger* logger = logger_finder ? logger_finder->findLogger() : nullptr;
  if (logger) logger->log(ILogger::Severity::kERROR, ("fastprompt: " + text).c_str());
}

}  // namespace fastprompt::tensorrt

// What TensorRT looks up in a plugin library. REGISTER_TENSORRT_PLUGIN would need a symbol of TensorRT to load.
#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void setLoggerFinder(ILoggerFinder* finder) { fastprompt::tensorrt::logger_finder = finder; }

EXPORT IPluginCreatorInterface* const* getCreators(int32_t& count) {
  using namespace fastprompt::tensorrt;
  static const std::vector<IPluginCreatorInterface*> all = [] {
    std::vector<IPluginCreatorInterface*> made;
    for (const auto* kinds : {&kGeodesicKinds, &kLaunchKinds})
      for (const Kind& kind : *kinds) made.push_back(new_creator(kind));
    return made;
  }();
  count = static_cast<int32_t>(all.size());
  return all.data();
}

// "GeodesicDistance 1\n…": names and versions, for those who cannot call C++.
EXPORT const char* fastprompt_plugins() {
  using namespace fastprompt::tensorrt;
  static const std::string names = [] {
    std::string text;
    for (const auto* kinds : {&kGeodesicKinds, &kLaunchKinds})
      for (const Kind& kind : *kinds) text += std::string(kind.name) + " " + kind.version + "\n";
    return text;
  }();
  return names.c_str();
}
