// click MODEL EMBEDDING.npy WIDTHxHEIGHT MASK.pgm X,Y[,0] ...
//
// The mask of an object that is clicked at pixels X,Y of a picture of WIDTH x HEIGHT; ",0" is a click off the object.
// MODEL is what `python -m fastprompt export sam-decoder` writes, EMBEDDING what the encoder gave for the picture.
// FASTPROMPT_LIBRARY: what fastprompt.export.onnxruntime.library_path() names (or, with an engine, the plugins);
// without it the file's standard operators run. CLICK_THREADS: 0, the default, leaves it to the runtime.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "image.h"

namespace {

constexpr int64_t kPatch = 16;  // pixels of the network's input along an axis of the embedding

std::string variable(const char* name) {
  const char* found = std::getenv(name);
  return found ? found : "";
}

Clicks read_clicks(int count, char** texts, double scale) {
  Clicks clicks;
  for (int k = 0; k < count; ++k) {
    double x, y;
    int label = 1;
    if (std::sscanf(texts[k], "%lf,%lf,%d", &x, &y, &label) < 2)
      throw std::invalid_argument(std::string("a click is X,Y or X,Y,0, not ") + texts[k]);
    clicks.points.insert(clicks.points.end(), {static_cast<float>(x * scale), static_cast<float>(y * scale)});
    clicks.labels.push_back(label);
  }
  clicks.points.insert(clicks.points.end(), {0, 0});
  clicks.labels.push_back(-1);  // a prompt without a box ends with one point of padding
  return clicks;
}

int run(int count, char** arguments) {
  int width = 0, height = 0;
  if (count < 6 || std::sscanf(arguments[3], "%dx%d", &width, &height) != 2 || width < 1 || height < 1) {
    std::fprintf(stderr, "usage: click MODEL EMBEDDING.npy WIDTHxHEIGHT MASK.pgm X,Y[,0] ...\n");
    return 2;
  }
  const Tensor embedding = read_npy(arguments[2]);
  if (embedding.shape.size() != 4 || embedding.shape[0] != 1)
    throw std::invalid_argument("the embedding must be (1, C, h, w), of one picture");
  const int64_t frame = kPatch * embedding.shape[3];
  const Clicks clicks = read_clicks(count - 5, arguments + 5, static_cast<double>(frame) / std::max(width, height));
  const auto decoder = load(arguments[1], variable("FASTPROMPT_LIBRARY"), std::atoi(variable("CLICK_THREADS").c_str()));
  const Masks masks = decoder->run(embedding, clicks);
  const auto& scores = masks.scores.values;
  const int64_t best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  const auto mask = full_size(masks.logits, best, frame, width, height);
  write_pgm(arguments[4], mask, width, height);
  const auto area = std::count(mask.begin(), mask.end(), 255);
  std::printf("mask %d of %zu, predicted IoU %.3f, %td pixels\n", static_cast<int>(best), scores.size(), scores[best],
              area);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(count, arguments);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "click: %s\n", e.what());
    return 1;
  }
}
