#include "common/sample.h"

#include <algorithm>
#include <cstring>

namespace fastprompt {
namespace {

constexpr std::size_t kLine = 64, kWords = kLine / sizeof(uint32_t);

struct Lanes {
  uint32_t word[kWords];
  void add(const uint32_t* with) {
    for (std::size_t k = 0; k < kWords; ++k)
      word[k] = (word[k] ^ with[k]) * 0x9E3779B1u + 0x85EBCA6Bu;  // odd: a bijection
  }
};

}  // namespace

uint64_t sample(const void* data, std::size_t bytes, std::size_t lines) {
  const char* from = static_cast<const char*>(data);
  const std::size_t whole = bytes / kLine, step = whole > lines ? (whole / lines) | 1 : 1;
  Lanes lanes{};
  uint32_t words[kWords];
  for (std::size_t n = 0; n < whole; n += step) {
    std::memcpy(words, from + n * kLine, kLine);
    lanes.add(words);
  }
  const std::size_t rest = bytes % kLine;
  const std::size_t tail = whole && step > 1 ? kLine : rest;  // of a large block the last line, whole or not
  std::memset(words, 0, kLine);
  std::memcpy(words, from + bytes - tail, tail);
  lanes.add(words);
  uint64_t found = bytes;
  for (const uint32_t word : lanes.word) found = (found ^ word) * 0x9E3779B97F4A7C15u + (found >> 29);
  return found;
}

}  // namespace fastprompt
