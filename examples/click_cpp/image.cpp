#include "image.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>

Tensor read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char head[10];
  if (!file.read(head, 10) || std::memcmp(head, "\x93NUMPY", 6)) throw std::runtime_error(path + ": not a .npy file");
  if (head[6] != 1) throw std::runtime_error(path + ": a .npy of version 1 is wanted");
  const size_t length = static_cast<uint8_t>(head[8]) + 256 * static_cast<uint8_t>(head[9]);
  std::string text(length, ' ');
  file.read(&text[0], static_cast<std::streamsize>(length));
  if (text.find("'<f4'") == std::string::npos || text.find("'fortran_order': False") == std::string::npos)
    throw std::runtime_error(path + ": float32 in C order is wanted, got " + text);
  Tensor found;
  int64_t count = 1;
  const char* at = text.c_str() + text.find('(') + 1;
  for (char* end; *at != ')'; at = end) {
    found.shape.push_back(std::strtoll(at, &end, 10));
    count *= found.shape.back();
    while (*end == ',' || *end == ' ') ++end;
  }
  found.values.resize(count);
  if (!file.read(reinterpret_cast<char*>(found.values.data()), static_cast<std::streamsize>(sizeof(float) * count)))
    throw std::runtime_error(path + ": shorter than its shape");
  return found;
}

namespace {

// `rows` x `columns` of an image whose rows are `pitch` apart.
std::vector<float> resized(const float* from, int64_t rows, int64_t columns, int64_t pitch, int64_t out_rows,
                           int64_t out_columns) {
  struct Place {
    int64_t low, high;
    float share;
  };
  const auto place = [](int64_t n, int64_t inputs, int64_t outputs) {
    const float at = std::clamp((n + 0.5f) * inputs / outputs - 0.5f, 0.0f, inputs - 1.0f);
    const int64_t low = static_cast<int64_t>(at);
    return Place{low, std::min(low + 1, inputs - 1), at - low};
  };
  std::vector<float> out(out_rows * out_columns);
  for (int64_t y = 0; y < out_rows; ++y) {
    const Place v = place(y, rows, out_rows);
    const float *above = from + v.low * pitch, *below = from + v.high * pitch;
    for (int64_t x = 0; x < out_columns; ++x) {
      const Place h = place(x, columns, out_columns);
      const float top = above[h.low] + h.share * (above[h.high] - above[h.low]);
      const float bottom = below[h.low] + h.share * (below[h.high] - below[h.low]);
      out[y * out_columns + x] = top + v.share * (bottom - top);
    }
  }
  return out;
}

}  // namespace

std::vector<uint8_t> full_size(const Tensor& logits, int64_t k, int64_t frame, int64_t width, int64_t height) {
  const int64_t rows = logits.shape[2], columns = logits.shape[3];
  const double scale = static_cast<double>(frame) / std::max(width, height);
  const int64_t inner_rows = std::llround(height * scale), inner_columns = std::llround(width * scale);
  const auto framed = resized(logits.values.data() + k * rows * columns, rows, columns, columns, frame, frame);
  const auto full = resized(framed.data(), inner_rows, inner_columns, frame, height, width);
  std::vector<uint8_t> mask(full.size());
  std::transform(full.begin(), full.end(), mask.begin(), [](float x) { return x > 0 ? 255 : 0; });
  return mask;
}

void write_pgm(const std::string& path, const std::vector<uint8_t>& pixels, int64_t width, int64_t height) {
  std::ofstream file(path, std::ios::binary);
  file << "P5\n" << width << ' ' << height << "\n255\n";
  file.write(reinterpret_cast<const char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
  if (!file) throw std::runtime_error(path + ": cannot be written");
}
