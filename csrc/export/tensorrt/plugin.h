// One class for all our plugins of TensorRT (IPluginV3). What differs is an Operator, which is made from the fields:
// the attributes of the ONNX node when a network is built, what the engine holds of them when it is loaded.
#pragma once
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/sizes.h"

namespace fastprompt::tensorrt {

// A copy of plugin fields: TensorRT's arrays live as long as its call.
class Fields {
 public:
  Fields() = default;
  explicit Fields(const nvinfer1::PluginFieldCollection& given);

  // std::invalid_argument where the field is missing or of another type.
  int64_t integer(const char* name) const { return integers(name, 1).front(); }
  float number(const char* name) const { return numbers(name, 1).front(); }
  std::string text(const char* name) const;
  std::vector<int64_t> integers(const char* name, size_t count = 0) const;  // 0: any number of them
  std::vector<float> numbers(const char* name, size_t count = 0) const;

  // Points into this object.
  std::vector<nvinfer1::PluginField> collection() const;

 private:
  struct Field {
    std::string name, bytes;
    nvinfer1::PluginFieldType type;
    int32_t length;
  };
  const Field& find(const char* name) const;
  std::vector<Field> fields_;
};

using Descriptions = std::vector<nvinfer1::PluginTensorDesc>;

// May throw; Plugin reports it to TensorRT's logger.
class Operator {
 public:
  virtual ~Operator() = default;
  virtual size_t inputs() const = 0;
  virtual std::vector<nvinfer1::DataType> types() const = 0;  // of the inputs, then of the outputs; all are linear
  virtual void shapes(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs* out, nvinfer1::IExprBuilder& build) const = 0;
  virtual size_t workspace(const Descriptions& largest) const = 0;  // bytes
  virtual void prepare(const Descriptions& in) = 0;                 // before enqueue, whenever shapes have changed
  virtual void enqueue(const Descriptions& in, const void* const* inputs, void* const* outputs, void* workspace,
                       cudaStream_t stream) = 0;
};

struct Kind {
  const char* name;
  const char* version;
  std::vector<nvinfer1::PluginField> fields;  // name and type
  std::unique_ptr<Operator> (*make)(const Fields& fields);
};

constexpr char kNamespace[] = "fastprompt";

nvinfer1::IPluginCreatorInterface* new_creator(const Kind& kind);  // for the life of the library
void log_error(const std::string& text);

// Kernels compiled with nvcc, and kernels that come with the node as PTX.
extern const std::vector<Kind> kGeodesicKinds, kLaunchKinds;

}  // namespace fastprompt::tensorrt
