#include "common/interrupt.h"

#include <chrono>

namespace fastprompt {
namespace {

constexpr int64_t kInterval = 100'000'000;  // ns

int64_t now() { return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

thread_local Watch* watch = nullptr;
thread_local bool mine = false;

}  // namespace

Watch::Watch(Ask ask, void* context)
    : ask_(ask), context_(context), next_(now() + kInterval), outer_(watch), outer_mine_(mine) {
  watch = this, mine = true;
}

Watch::~Watch() { watch = outer_, mine = outer_mine_; }

void Watch::look() {
  if (now() < next_ || ended()) return;
  if (ask_(context_)) ended_.store(true, std::memory_order_relaxed);
  next_ = now() + kInterval;
}

Watch* current_watch() { return watch; }
bool asks_itself() { return mine; }

void checkpoint() {
  if (!watch) return;
  if (mine) watch->look();
  if (watch->ended()) throw Interrupted{};
}

Under::Under(Watch* of) { watch = of, mine = false; }
Under::~Under() { watch = nullptr; }

}  // namespace fastprompt
