// How a long call is ended from outside, by Ctrl-C say, without the kernels knowing who asks.
#pragma once
#include <atomic>
#include <cstdint>

namespace fastprompt {

// What checkpoint() throws. Whoever made the Watch catches it; everybody else lets it pass.
struct Interrupted {};

// While it lives, the calls of this thread ask `ask(context)` every 100 ms, on this thread and without a lock held,
// whether they are to end, and end with Interrupted if it says so. The threads that help with them end, too.
class Watch {
 public:
  using Ask = bool (*)(void* context);
  Watch(Ask ask, void* context);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  bool ended() const { return ended_.load(std::memory_order_relaxed); }
  void look();

 private:
  const Ask ask_;
  void* const context_;
  int64_t next_;  // ns of the steady clock
  std::atomic<bool> ended_{false};
  Watch* const outer_;
  const bool outer_mine_;
};

// To be called by every loop that may take long, some 10 us to 10 ms apart; 30 ns. parallel_for and Member::next do.
void checkpoint();

// body(from, to) for parts of [0, count) that take about a millisecond.
template <class Body>
void by_chunks(int64_t count, const Body& body) {
  constexpr int64_t kChunk = 1 << 20;
  for (int64_t from = 0; from < count; from += kChunk) {
    checkpoint();
    body(from, count - from < kChunk ? count : from + kChunk);
  }
}

// The watch of this thread, or nullptr, and whether it is this thread that asks.
Watch* current_watch();
bool asks_itself();

// A helper works under the watch of the thread that it helps.
class Under {
 public:
  explicit Under(Watch* watch);
  ~Under();
  Under(const Under&) = delete;
  Under& operator=(const Under&) = delete;
};

}  // namespace fastprompt
