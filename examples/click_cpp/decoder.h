// SAM's decoder as docs/export.md describes its file: an embedding and clicks in, masks and scores out.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

struct Clicks {                 // one prompt; pixels of the network's input, 1024 on its longer side
  std::vector<float> points;    // x, y, x, y, ...
  std::vector<int64_t> labels;  // 1 on the object, 0 off it; without a box the last one is -1, at any place
};

struct Masks {
  Tensor logits;  // (1, K, 256, 256)
  Tensor scores;  // (1, K)
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual Masks run(const Tensor& embedding, const Clicks& clicks) = 0;
};

// `model` is an ONNX file or an engine; `library` that of our operators or plugins, or empty: standard operators.
std::unique_ptr<Decoder> load(const std::string& model, const std::string& library, int threads);
