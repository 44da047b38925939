#include "common/scratch.h"

#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastprompt {
namespace {

constexpr std::size_t kPage = std::size_t(2) << 20;    // a huge page
constexpr std::size_t kKeep = std::size_t(256) << 20;  // bytes that a thread keeps at most

struct Block {
  void* data;
  std::size_t bytes;
};

struct Cache {
  std::vector<Block> blocks;
  std::size_t bytes = 0;
  ~Cache() {
    for (const Block& b : blocks) std::free(b.data);
  }
};

thread_local Cache cache;

void* allocate(std::size_t bytes) {
  void* data = nullptr;
  if (bytes < kPage) {
    if (posix_memalign(&data, 4096, bytes)) throw std::bad_alloc();
    return data;
  }
  if (posix_memalign(&data, kPage, bytes)) throw std::bad_alloc();
  prefer_huge_pages(data, bytes);
  return data;
}

}  // namespace

Scratch::Scratch(std::size_t floats) {
  const std::size_t need = floats * sizeof(float) + 64;
  const std::size_t unit = need < kPage ? 4096 : kPage;
  bytes_ = (need + unit - 1) / unit * unit;
  for (std::size_t i = 0; i < cache.blocks.size(); ++i) {
    const Block b = cache.blocks[i];
    if (b.bytes < bytes_ || b.bytes > 2 * bytes_) continue;  // never hold more than twice what is asked for
    cache.blocks.erase(cache.blocks.begin() + i);
    cache.bytes -= b.bytes;
    data_ = static_cast<float*>(b.data), bytes_ = b.bytes;
    return;
  }
  data_ = static_cast<float*>(allocate(bytes_));
}

float* Scratch::data() const { return data_; }

Scratch::~Scratch() {
  if (cache.blocks.size() < 8 && cache.bytes + bytes_ <= kKeep) {
    cache.blocks.push_back({data_, bytes_});
    cache.bytes += bytes_;
  } else {
    std::free(data_);
  }
}

void prefer_huge_pages(void* data, std::size_t bytes) {
#if defined(__linux__)
  const std::uintptr_t from = reinterpret_cast<std::uintptr_t>(data), page = 4096;
  const std::uintptr_t first = (from + page - 1) / page * page, last = (from + bytes) / page * page;
  if (last > first + kPage) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace fastprompt
