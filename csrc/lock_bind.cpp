// The lock of Python during a call: given up, taken for a moment to ask for signals, and taken back.
#include <unistd.h>

#include <exception>

#include "bind.h"
#include "common/interrupt.h"

#if defined(__linux__)
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <pthread.h>
#endif

namespace fastprompt {
namespace {

// The thread that handles signals: that of main(), or after a fork the one that is left. Does not need the lock.
bool on_main_thread() {
#if defined(__linux__)
  return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
  return pthread_main_np() != 0;
#else
  return false;
#endif
}

// NOTE: once Python is finalised, a daemon thread never gets the lock: up to Python 3.13 it is unwound instead, as
// pthread_exit() does. Its objects could not be let go without the lock, and a destructor that is unwound through ends
// the process with "terminate called". So it waits here for the end of the process, as it does from 3.14 on.
void take_lock(PyThreadState* state) {
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    for (;;) pause();
  }
}

// true: a handler has raised, which stays in the state of this thread until the kernel has ended.
bool handler_raised(void* context) {
  if (!on_main_thread()) return false;
  auto& state = *static_cast<PyThreadState**>(context);
  take_lock(state);
  const bool raised = PyErr_CheckSignals() != 0;
  state = PyEval_SaveThread();
  return raised;
}

}  // namespace

void without_lock(void (*work)(void*), void* context) {
  PyThreadState* state = PyEval_SaveThread();
  std::exception_ptr error;
  bool raised = false;
  {
    const Watch watch(handler_raised, &state);
    try {
      work(context);
    } catch (...) {
      error = std::current_exception();
    }
    raised = watch.ended();
  }
  take_lock(state);
  if (raised) throw py::error_already_set();
  if (error) std::rethrow_exception(error);
}

}  // namespace fastprompt
