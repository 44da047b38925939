// The decoder as an engine of TensorRT. Compiled against its headers, never run by us: there was no GPU.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "decoder.h"

namespace {

class Logger : public nvinfer1::ILogger {
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kWARNING) std::fprintf(stderr, "TensorRT: %s\n", text);
  }
};

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

struct Memory {
  void* data = nullptr;
  explicit Memory(size_t bytes) { check(cudaMalloc(&data, bytes)); }
  ~Memory() { cudaFree(data); }
  Memory(const Memory&) = delete;
};

class Engine : public Decoder {
 public:
  Engine(const std::string& path, const std::string& plugins) {
    std::ifstream file(path, std::ios::binary);
    const std::string data{std::istreambuf_iterator<char>(file), {}};
    if (data.empty()) throw std::runtime_error(path + ": cannot be read");
    runtime_.reset(nvinfer1::createInferRuntime(logger_));
    // Before the engine: an engine that was built with plugins asks for their creators when it is read.
    if (!plugins.empty() && !runtime_->getPluginRegistry().loadLibrary(plugins.c_str()))
      throw std::runtime_error(plugins + ": cannot be loaded as a library of plugins");
    engine_.reset(runtime_->deserializeCudaEngine(data.data(), data.size()));
    if (!engine_) throw std::runtime_error(path + ": no engine for this version of TensorRT and this GPU");
    context_.reset(engine_->createExecutionContext());
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~Engine() override { cudaStreamDestroy(stream_); }

  Masks run(const Tensor& embedding, const Clicks& clicks) override {
    const int64_t points = static_cast<int64_t>(clicks.labels.size());
    const Memory image(bytes(embedding.values)), at(bytes(clicks.points)), labels(bytes(clicks.labels));
    give("image_embeddings", embedding.values, embedding.shape, image.data);
    give("points", clicks.points, {1, points, 2}, at.data);
    give("labels", clicks.labels, {1, points}, labels.data);
    Masks found{shaped("masks"), shaped("scores")};
    const Memory masks(bytes(found.logits.values)), scores(bytes(found.scores.values));
    context_->setTensorAddress("masks", masks.data);
    context_->setTensorAddress("scores", scores.data);
    if (!context_->enqueueV3(stream_)) throw std::runtime_error("the engine failed: see the messages above");
    take(found.logits.values, masks.data);
    take(found.scores.values, scores.data);
    check(cudaStreamSynchronize(stream_));
    return found;
  }

 private:
  template <class T>
  static size_t bytes(const std::vector<T>& values) {
    return sizeof(T) * values.size();
  }

  template <class T>
  void give(const char* name, const std::vector<T>& values, const std::vector<int64_t>& shape, void* to) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), dims.d);
    if (!context_->setInputShape(name, dims))
      throw std::runtime_error(std::string(name) + ": a shape outside of the profile that the engine was built with");
    check(cudaMemcpyAsync(to, values.data(), bytes(values), cudaMemcpyHostToDevice, stream_));
    context_->setTensorAddress(name, to);
  }

  Tensor shaped(const char* name) const {
    const nvinfer1::Dims dims = context_->getTensorShape(name);
    Tensor found{{dims.d, dims.d + dims.nbDims}, {}};
    int64_t count = 1;
    for (int64_t size : found.shape) count *= size;
    found.values.resize(count);
    return found;
  }

  void take(std::vector<float>& values, const void* from) {
    check(cudaMemcpyAsync(values.data(), from, bytes(values), cudaMemcpyDeviceToHost, stream_));
  }

  Logger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::unique_ptr<Decoder> load(const std::string& model, const std::string& library, int) {
  return std::make_unique<Engine>(model, library);
}
