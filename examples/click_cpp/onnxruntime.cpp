// The decoder in ONNX Runtime, with our operators where their library is given.
#include <onnxruntime_cxx_api.h>

#include "decoder.h"

namespace {

Tensor copy_of(const Ort::Value& value) {
  const auto shape = value.GetTensorTypeAndShapeInfo();
  const float* values = value.GetTensorData<float>();
  return {shape.GetShape(), std::vector<float>(values, values + shape.GetElementCount())};
}

class OnnxRuntime : public Decoder {
 public:
  OnnxRuntime(const std::string& model, const std::string& library, int threads)
      : session_(environment_, model.c_str(), options(library, threads)) {}

  Masks run(const Tensor& embedding, const Clicks& clicks) override {
    const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto tensor = [&](const auto& values, const std::vector<int64_t>& shape) {
      using T = typename std::decay_t<decltype(values)>::value_type;
      return Ort::Value::CreateTensor<T>(memory, const_cast<T*>(values.data()), values.size(), shape.data(),
                                         shape.size());
    };
    const int64_t points = static_cast<int64_t>(clicks.labels.size());
    Ort::Value inputs[] = {tensor(embedding.values, embedding.shape), tensor(clicks.points, {1, points, 2}),
                           tensor(clicks.labels, {1, points})};
    const char *in[] = {"image_embeddings", "points", "labels"}, *out[] = {"masks", "scores"};
    const auto found = session_.Run(Ort::RunOptions(), in, inputs, 3, out, 2);
    return {copy_of(found[0]), copy_of(found[1])};
  }

 private:
  static Ort::SessionOptions options(const std::string& library, int threads) {
    Ort::SessionOptions made;
    if (threads) made.SetIntraOpNumThreads(threads);
    if (!library.empty()) made.RegisterCustomOpsLibrary(library.c_str());
    return made;
  }

  Ort::Env environment_;
  Ort::Session session_;
};

}  // namespace

std::unique_ptr<Decoder> load(const std::string& model, const std::string& library, int threads) {
  return std::make_unique<OnnxRuntime>(model, library, threads);
}
