#include "common/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "common/interrupt.h"

namespace fastprompt {
namespace {

constexpr auto kPause = std::chrono::milliseconds(50);

struct Job {
  Job(const std::function<void(int64_t)>& body, int64_t count) : body(body), count(count) {}

  const std::function<void(int64_t)>& body;
  int64_t count;
  Watch* const watch = current_watch();
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::condition_variable done;
  int running = 0;  // helpers inside the body
  std::exception_ptr error;

  void work() {
    for (int64_t i; (i = next.fetch_add(1)) < count;) {
      try {
        checkpoint();
        body(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!error) error = std::current_exception();
        next = count;
      }
    }
  }

  // Until no helper is inside the body; asks meanwhile whether it is to end.
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    const auto idle = [this] { return running == 0; };
    if (!asks_itself()) return done.wait(lock, idle);
    while (!done.wait_for(lock, kPause, idle)) {
      lock.unlock();
      watch->look();
      lock.lock();
    }
  }
};

class Pool {
 public:
  void call(int helpers, const std::shared_ptr<Job>& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (; threads_ < helpers; ++threads_) std::thread([this] { serve(); }).detach();
    for (int i = 0; i < helpers; ++i) jobs_.push_back(job);
    helpers == 1 ? wake_.notify_one() : wake_.notify_all();
  }

  void recall(const std::shared_ptr<Job>& job) {
    std::unique_lock<std::mutex> lock(mutex_);
    jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), job), jobs_.end());
  }

 private:
  void serve() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return !jobs_.empty(); });
      const std::shared_ptr<Job> job = jobs_.front();
      jobs_.pop_front();
      {
        std::lock_guard<std::mutex> started(job->mutex);
        ++job->running;
      }
      lock.unlock();
      {
        const Under caller(job->watch);
        job->work();
      }
      std::lock_guard<std::mutex> finished(job->mutex);
      if (--job->running == 0) job->done.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> jobs_;
  int threads_ = 0;
};

// NOTE: never destroyed: detached helpers may outlive main(). A forked child has no helpers, so it gets a new pool.
Pool* pool = new Pool;
const int registered = pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });

thread_local UseThreadsOf::Run host_run = nullptr;
thread_local void* host = nullptr;
thread_local bool in_task_of_host = false;  // where a loop inside a loop runs alone: hosts cannot nest them

void work_for_host(void* job, size_t) {
  in_task_of_host = true;
  static_cast<Job*>(job)->work();
  in_task_of_host = false;
}

}  // namespace

UseThreadsOf::UseThreadsOf(Run run, void* of) { host_run = run, host = of; }
UseThreadsOf::~UseThreadsOf() { host_run = nullptr, host = nullptr; }

void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& body) {
  (void)registered;
  const int helpers = static_cast<int>(std::min<int64_t>(threads, count)) - 1;
  if (helpers <= 0 || in_task_of_host) {
    for (int64_t i = 0; i < count; ++i) checkpoint(), body(i);
    return;
  }
  if (host_run) {
    Job job(body, count);
    host_run(host, helpers + 1, work_for_host, &job);
    if (job.error) std::rethrow_exception(job.error);
    return;
  }
  const auto job = std::make_shared<Job>(body, count);
  pool->call(helpers, job);
  job->work();
  pool->recall(job);
  job->wait();
  if (job->error) std::rethrow_exception(job->error);
}

// ---------------------------------------------------------------- teams

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kRangesPerThread = 2;
constexpr auto kPatience = std::chrono::microseconds(400);  // a helper on its core needs 2 to 200 us for a range
constexpr auto kRetreat = std::chrono::milliseconds(300);

// NOTE: a helper that loses its core in the middle of a range costs the others a time slice, some milliseconds. After
// one such stall the cores are taken: this call and those of the next 300 ms go on without helpers.
std::atomic<Clock::rep> alone_until{0};

Clock::rep now() { return Clock::now().time_since_epoch().count(); }

struct Abandoned {};  // how a member leaves the program of a team that has failed

}  // namespace

struct Member::Shared {
  int threads;
  alignas(64) std::atomic<int64_t> ticket{0};
  alignas(64) std::atomic<int64_t> finished{0};
  alignas(64) std::atomic<bool> alone{false};
  std::atomic<bool> failed{false};
  std::exception_ptr error;  // of the member that set `failed`
};

void Member::stage(int64_t items, bool one_by_one) {
  items_ = items;
  first_ = end_;
  end_ += one_by_one ? items : std::min(items, shared_->threads == 1 ? 1 : kRangesPerThread * shared_->threads);
}

bool Member::next(int64_t* from, int64_t* to) {
  if (working_) shared_->finished.fetch_add(1, std::memory_order_acq_rel);
  working_ = false;
  checkpoint();
  if (shared_->failed.load(std::memory_order_relaxed)) throw Abandoned{};
  if (shared_->ticket.load(std::memory_order_relaxed) >= end_) return false;
  wait(first_);
  if (dismissed()) return false;
  for (int64_t t = shared_->ticket.load(std::memory_order_acquire); t < end_;) {
    if (!shared_->ticket.compare_exchange_weak(t, t + 1, std::memory_order_acq_rel)) continue;
    const int64_t n = t - first_, ranges = end_ - first_;
    *from = items_ * n / ranges, *to = items_ * (n + 1) / ranges;
    return working_ = true;
  }
  return false;
}

// A helper that made the leader wait is not asked again.
bool Member::dismissed() const { return !leader_ && shared_->alone.load(std::memory_order_relaxed); }

void Member::wait(int64_t finished) {
  if (shared_->finished.load(std::memory_order_acquire) >= finished) return;
  const auto begin = Clock::now();
  for (int spin = 1; shared_->finished.load(std::memory_order_acquire) < finished && !dismissed(); ++spin) {
    if (spin % 64) continue;
    if (shared_->failed.load(std::memory_order_relaxed)) throw Abandoned{};
    if (Clock::now() - begin < kPatience) continue;
    checkpoint();
    if (leader_ && !shared_->alone.exchange(true)) alone_until = now() + Clock::duration(kRetreat).count();
    std::this_thread::yield();
  }
}

int team_size(int threads) { return now() < alone_until.load(std::memory_order_relaxed) ? 1 : threads; }

void run_team(int threads, void (*program)(Member&, void*), void* context) {
  Member::Shared shared{threads};
  std::atomic<bool> led{false};
  parallel_for(threads, threads, [&](int64_t) {
    Member member;
    member.shared_ = &shared;
    member.leader_ = !led.exchange(true);
    try {
      program(member, context);
      if (member.leader_) member.wait(member.end_);
    } catch (...) {  // the others would wait for its range for ever
      if (!shared.failed.exchange(true)) shared.error = std::current_exception();
    }
  });
  if (shared.error) std::rethrow_exception(shared.error);
}

}  // namespace fastprompt
