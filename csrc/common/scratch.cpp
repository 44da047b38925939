#include "common/scratch.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "common/release.h"

#if defined(__linux__)
#include <malloc.h>
#include <sys/mman.h>
#endif

namespace fastprompt {
namespace {

constexpr std::size_t kPage = std::size_t(2) << 20;    // a huge page
constexpr std::size_t kKeep = std::size_t(256) << 20;  // bytes that all threads together keep at most
constexpr std::size_t kBlocks = 8;                     // of a thread
constexpr auto kRound = std::chrono::seconds(1);

class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(double bytes) {
    std::snprintf(text_, sizeof text_, "a call needs %.4g GB of temporary memory, which are not to be had",
                  bytes / 1e9);
  }
  const char* what() const noexcept override { return text_; }

 private:
  char text_[96];
};

struct Block {
  void* data;
  std::size_t bytes;
  unsigned round;  // when it was last used
};

// What a thread keeps. Its lock is only ever waited for while another thread frees.
struct Cache {
  Cache() { blocks.reserve(kBlocks); }
  std::mutex mutex;
  std::vector<Block> blocks;
};

struct Store {
  std::mutex mutex;  // taken before that of a cache
  std::vector<Cache*> caches;
  std::atomic<std::size_t> kept{0};
  std::atomic<unsigned> round{0};  // goes on where memory is short, at most once a second
  std::chrono::steady_clock::time_point begun{};

  // Frees the blocks of a cache that were last used before a round.
  std::size_t free_older(Cache& cache, unsigned before) {
    std::size_t freed = 0;
    const std::lock_guard<std::mutex> lock(cache.mutex);
    const auto old = [&](const Block& b) {
      if (b.round >= before) return false;
      std::free(b.data);
      freed += b.bytes;
      return true;
    };
    cache.blocks.erase(std::remove_if(cache.blocks.begin(), cache.blocks.end(), old), cache.blocks.end());
    kept -= freed;
    return freed;
  }

  // Whether `bytes` more can be kept. What nobody has used for a second makes room: idle threads must not take it from
  // those that work.
  bool room_for(std::size_t bytes) {
    if (kept.load(std::memory_order_relaxed) + bytes <= kKeep) return true;
    if (bytes > kKeep) return false;
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto now = std::chrono::steady_clock::now(); now - begun >= kRound) {
      begun = now;
      const unsigned current = ++round;
      for (Cache* cache : caches) free_older(*cache, current - 1);
    }
    return kept.load(std::memory_order_relaxed) + bytes <= kKeep;
  }

  void lock_all() {
    mutex.lock();
    for (Cache* cache : caches) cache->mutex.lock();
  }
  void unlock_all() {
    for (Cache* cache : caches) cache->mutex.unlock();
    mutex.unlock();
  }
};

// NOTE: never destroyed: helpers may outlive main(). In a forked child the blocks of the threads that are gone stay in
// it: release_memory frees them there.
Store& store = *new Store;
const int registered = pthread_atfork([] { store.lock_all(); }, [] { store.unlock_all(); }, [] { store.unlock_all(); });

struct Owner {
  Cache* cache = nullptr;
  ~Owner() {
    if (!cache) return;
    const std::lock_guard<std::mutex> lock(store.mutex);
    store.free_older(*cache, store.round + 1);
    store.caches.erase(std::find(store.caches.begin(), store.caches.end(), cache));
    delete cache;
  }
};

Cache& cache_of_thread() {
  static thread_local Owner owner;
  if (!owner.cache) {
    (void)registered;
    const std::lock_guard<std::mutex> lock(store.mutex);
    store.caches.reserve(store.caches.size() + 1);
    owner.cache = new Cache;
    store.caches.push_back(owner.cache);
  }
  return *owner.cache;
}

void* allocate(std::size_t bytes) {
  void* data = nullptr;
  const std::size_t unit = bytes < kPage ? 4096 : kPage;
  if (posix_memalign(&data, unit, bytes) && (!release_memory() || posix_memalign(&data, unit, bytes)))
    throw OutOfMemory(double(bytes));
  if (bytes >= kPage) prefer_huge_pages(data, bytes);
  return data;
}

}  // namespace

Scratch::Scratch(std::size_t floats) {
  if (floats > SIZE_MAX / 16) throw OutOfMemory(double(floats) * sizeof(float));
  const std::size_t need = floats * sizeof(float) + 64;
  const std::size_t unit = need < kPage ? 4096 : kPage;
  bytes_ = (need + unit - 1) / unit * unit;
  Cache& cache = cache_of_thread();
  {
    const std::lock_guard<std::mutex> lock(cache.mutex);
    for (auto b = cache.blocks.begin(); b != cache.blocks.end(); ++b) {
      if (b->bytes < bytes_ || b->bytes > 2 * bytes_) continue;  // never hold more than twice what is asked for
      data_ = static_cast<float*>(b->data), bytes_ = b->bytes;
      cache.blocks.erase(b);
      store.kept -= bytes_;
      return;
    }
  }
  data_ = static_cast<float*>(allocate(bytes_));
}

float* Scratch::data() const { return data_; }

Scratch::~Scratch() {
  Cache& cache = cache_of_thread();
  if (store.room_for(bytes_)) {
    const std::lock_guard<std::mutex> lock(cache.mutex);
    if (cache.blocks.size() < kBlocks) {
      cache.blocks.push_back({data_, bytes_, store.round.load(std::memory_order_relaxed)});
      store.kept += bytes_;
      return;
    }
  }
  std::free(data_);
}

std::size_t release_memory() {
  std::size_t freed = 0;
  {
    const std::lock_guard<std::mutex> lock(store.mutex);
    for (Cache* cache : store.caches) freed += store.free_older(*cache, store.round + 1);
  }
#if defined(__GLIBC__)
  malloc_trim(0);  // else it stays with the allocator
#endif
  return freed;
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
