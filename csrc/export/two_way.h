// SAM's two-way transformer as a node has it: its weights one after the other, and what is kept of an image.
#pragma once
#include <functional>

#include "decoder/two_way.h"
#include "export/node.h"

namespace fastprompt {

// Reads weights of a node, each with a check of its size.
struct Weights {
  Node& node;
  size_t at;
  const float* next(int64_t count);
  Linear linear(int64_t out, int64_t in);
  LayerNorm norm(int64_t channels, float eps);
  AttentionWeights attention(int64_t channels, int64_t inner);
};

// `call` points into `layers`.
struct Transformer {
  std::vector<TwoWayLayer> layers;
  TwoWay call{};

  // Of a node whose inputs `image` and `prompt` are (B', C, H, W) and (B, T, C) and whose weights begin at `first`.
  Transformer(Node& node, size_t image, size_t prompt, size_t first);
  Transformer(const Transformer&) = delete;
  int64_t inner() const { return call.heads * call.width; }
  size_t weights() const { return 36 * layers.size() + 10; }
};

struct Part {
  const float* data;
  int64_t count;
};

// What make(rows) writes into `bytes` of aligned memory: as it was made before where all parts are the same numbers. A
// tool asks about one image again and again, and comparing costs a small part of preparing.
std::shared_ptr<const void> prepared(Node& node, const std::vector<Part>& parts, size_t bytes,
                                     const std::function<void(void*)>& make);

// Prepares the image (B', C, pixels) and runs the transformer; the results are in prompt_out and image_out.
void run_two_way(Node& node, Transformer& t, const float* image, const float* position);

// A tensor's memory that kernels read by whole cache lines.
std::unique_ptr<void, void (*)(void*)> aligned(size_t bytes);

inline int64_t padded_tokens(int64_t pixels) { return (pixels + kLargestTile - 1) / kLargestTile * kLargestTile; }

}  // namespace fastprompt
