#pragma once
#include <cstdint>
#include <functional>

namespace fastprompt {

// body(i) once for every i in [0, count), on at most `threads` threads, the caller being one of them.
// The caller never waits for a helper that has not begun: on a busy machine it does the work itself.
// The first exception of a body is rethrown. Any number of callers at a time; safe after fork(). Each item is a
// checkpoint (interrupt.h).
void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& body);

// The threads of a host, an inference runtime say, instead of ours, for the calls of this thread while the object
// lives. run(host, tasks, task, context) calls task(context, k) for every k < tasks, at the same time or one after
// another.
class UseThreadsOf {
 public:
  using Run = void (*)(void* host, size_t tasks, void (*task)(void*, size_t), void* context);
  UseThreadsOf(Run run, void* host);
  ~UseThreadsOf();
  UseThreadsOf(const UseThreadsOf&) = delete;
  UseThreadsOf& operator=(const UseThreadsOf&) = delete;
};

// Work in stages, where every stage needs all of the one before: a sweep over the planes of a volume, say. All threads
// of a team run the same program; the items of a stage are handed out in ranges, so a thread that comes late, or is
// taken off its core, finds less to do instead of keeping the others waiting.
class Member {
 public:
  // Opens the next stage; its items are handed out once all earlier stages are finished, in two ranges for each thread,
  // or one by one: then an item should take less than 0.3 ms, for who waits longer takes the other cores for lost.
  void stage(int64_t items, bool one_by_one = false);
  // A range [*from, *to) of items for the calling thread; false: all are taken. It counts as done at the next call.
  bool next(int64_t* from, int64_t* to);

 private:
  friend void run_team(int threads, void (*program)(Member&, void*), void* context);
  struct Shared;
  void wait(int64_t finished);
  bool dismissed() const;

  Shared* shared_ = nullptr;
  int64_t items_ = 0, first_ = 0, end_ = 0;  // of the stage; its ranges are the tickets [first_, end_)
  bool working_ = false, leader_ = false;
};

// How many of `threads` a team should have now: 1 if the other cores were taken a moment ago.
int team_size(int threads);

// program(member, context) on up to `threads` threads; a plain function pointer, for *.simd.cpp must not use std::.
// The first exception of a member is rethrown, and the others leave at their next range.
void run_team(int threads, void (*program)(Member&, void*), void* context);

}  // namespace fastprompt
