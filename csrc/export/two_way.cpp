#include "export/two_way.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "common/parallel.h"

namespace fastprompt {
namespace {

struct Prepared {
  std::vector<float> made_of;
  std::unique_ptr<void, void (*)(void*)> rows;
};

// On all threads: 11 MB of an image, its positions and the weights take 1 ms on one.
bool same(const std::vector<float>& all, const std::vector<Part>& parts, int threads) {
  constexpr int64_t kBlock = 1 << 16;
  std::vector<Part> blocks;  // of the parts, and where they stand in `all`
  for (const Part& p : parts)
    for (int64_t at = 0; at < p.count; at += kBlock) blocks.push_back({p.data + at, std::min(kBlock, p.count - at)});
  std::vector<int64_t> places;
  int64_t total = 0;
  for (const Part& b : blocks) places.push_back(total), total += b.count;
  if (total != static_cast<int64_t>(all.size())) return false;
  std::atomic<bool> equal{true};
  parallel_for(threads, static_cast<int64_t>(blocks.size()), [&](int64_t k) {
    const Part& b = blocks[k];
    if (equal.load(std::memory_order_relaxed) && std::memcmp(all.data() + places[k], b.data, sizeof(float) * b.count))
      equal = false;
  });
  return equal;
}

}  // namespace

std::unique_ptr<void, void (*)(void*)> aligned(size_t bytes) {
  std::unique_ptr<void, void (*)(void*)> found{std::aligned_alloc(64, (bytes + 63) / 64 * 64), std::free};
  if (!found) throw std::bad_alloc();
  return found;
}

std::shared_ptr<const void> prepared(Node& node, const std::vector<Part>& parts, size_t bytes,
                                     const std::function<void(void*)>& make) {
  std::shared_ptr<const Prepared> kept;
  {
    std::lock_guard<std::mutex> lock(node.memory.mutex);
    kept = std::static_pointer_cast<const Prepared>(node.memory.kept);
  }
  if (!kept || !same(kept->made_of, parts, node.threads)) {
    const auto made = std::make_shared<Prepared>(Prepared{{}, aligned(bytes)});
    for (const Part& p : parts) made->made_of.insert(made->made_of.end(), p.data, p.data + p.count);
    make(made->rows.get());
    kept = made;
    std::lock_guard<std::mutex> lock(node.memory.mutex);
    node.memory.kept = made;
  }
  return {kept, kept->rows.get()};
}

const float* Weights::next(int64_t count) {
  need(node.input(at).count() == count, "a weight of the transformer has a wrong size");
  return node.floats(at++);
}

Linear Weights::linear(int64_t out, int64_t in) {
  const float* weight = next(product({out, in}));
  return {weight, next(out)};
}

LayerNorm Weights::norm(int64_t channels, float eps) {
  const float* weight = next(channels);
  return {weight, next(channels), eps};
}

AttentionWeights Weights::attention(int64_t channels, int64_t inner) {
  const Linear query = linear(inner, channels), key = linear(inner, channels), value = linear(inner, channels);
  return {query, key, value, linear(channels, inner)};
}

Transformer::Transformer(Node& node, size_t image_at, size_t prompt_at, size_t first) {
  const Sizes image = node.input(image_at).shape, prompt = node.input(prompt_at).shape;
  need(image.size() == 4 && prompt.size() == 3 && image[1] == prompt[2], "image is (B, C, H, W), prompt (B, T, C)");
  TwoWay& a = call;
  a.images = image[0], a.channels = image[1], a.pixels = image[2] * image[3];
  a.prompts = prompt[0], a.tokens = prompt[1];
  const Attributes& o = node.attributes;
  a.heads = o.size("heads"), a.width = o.size("width"), a.depth = o.size("depth");
  need(a.images > 0 && a.prompts % a.images == 0, "there must be equally many prompts for every image");
  need(a.heads > 0 && a.width > 0 && a.width % 16 == 0 && a.channels > 0 && a.channels % (16 * a.heads) == 0,
       "channels of a head must be multiples of 16 for the kernel: export with flavor='inlined'");
  need(a.depth > 0 && node.inputs() >= first + 36 * static_cast<size_t>(a.depth) + 10,
       "wrong number of weights for the depth");
  const Sizes mlp = node.input(first + 20).shape;
  need(!mlp.empty() && mlp[0] > 0 && mlp[0] % 16 == 0,
       "the width of the MLP must be a multiple of 16 for the kernel: export with flavor='inlined'");
  a.mlp = mlp[0];
  const float eps = node.attributes.floats.at("eps");
  Weights w{node, first};
  layers.resize(a.depth);
  for (TwoWayLayer& l : layers) {
    l.self = w.attention(a.channels, a.channels), l.norm1 = w.norm(a.channels, eps);
    l.to_image = w.attention(a.channels, inner()), l.norm2 = w.norm(a.channels, eps);
    l.mlp1 = w.linear(a.mlp, a.channels), l.mlp2 = w.linear(a.channels, a.mlp), l.norm3 = w.norm(a.channels, eps);
    l.to_prompt = w.attention(a.channels, inner()), l.norm4 = w.norm(a.channels, eps);
  }
  a.final = w.attention(a.channels, inner()), a.final_norm = w.norm(a.channels, node.attributes.floats.at("final_eps"));
  a.layers = layers.data(), a.threads = node.threads;
  a.prompt = node.floats(prompt_at);
}

void run_two_way(Node& node, Transformer& t, const float* image, const float* position) {
  TwoWay& a = t.call;
  const TwoWayLayer& l = t.layers[0];
  const int64_t inner = t.inner(), channels = a.channels;
  const Linear key = l.to_image.key, value = l.to_image.value, query = l.to_prompt.query;
  std::vector<Part> parts{{image, a.images * channels * a.pixels}, {position, channels * a.pixels}};
  for (const Linear& x : {key, value, query})
    parts.push_back({x.weight, inner * channels}), parts.push_back({x.bias, inner});
  const size_t bytes = product({sizeof(float), a.images, padded_tokens(a.pixels), 2 * channels + 3 * inner});
  const auto rows = prepared(node, parts, bytes, [&](void* out) {
    two_way_prepare(
        {a.images, channels, a.pixels, inner, image, position, key, value, query, static_cast<float*>(out), a.threads});
  });
  a.prepared = rows.get();
  two_way(a);
}

}  // namespace fastprompt
