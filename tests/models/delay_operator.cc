// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// torch.ops.millrace.delay(x, setup_us, row_us): a model's cost, known exactly and paid without
// using the core. It returns x, after setup_us + row_us * x.size(0) microseconds. It is linked into
// millrace-test-worker only; modules.py declares the same operator to Python.
#include <errno.h>
#include <sys/prctl.h>
#include <time.h>
#include <torch/library.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace millrace {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr double kMostMicroseconds = 60e6;  // A longer delay is a mistake in the model.

// The kernel may end a sleep 50 us late unless asked not to.
void AskForExactTimers() {
  [[maybe_unused]] static thread_local const int asked = prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
}

timespec Later(timespec time, double microseconds) {
  const int64_t nanoseconds = time.tv_nsec + std::llround(microseconds * 1e3);
  time.tv_sec += nanoseconds / kNanosecondsPerSecond;
  time.tv_nsec = nanoseconds % kNanosecondsPerSecond;
  return time;
}

at::Tensor Delay(const at::Tensor& x, double setup_us, double row_us) {
  timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  TORCH_CHECK(x.dim() > 0, "millrace::delay takes a batch of rows; a scalar came");
  const double delay_us = setup_us + row_us * static_cast<double>(x.size(0));
  TORCH_CHECK(delay_us >= 0 && delay_us <= kMostMicroseconds, "millrace::delay of ", delay_us,
              " us was asked for; expected 0 to ", kMostMicroseconds);
  AskForExactTimers();
  until = Later(until, delay_us);
  int error;
  do {
    error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
  } while (error == EINTR);
  TORCH_CHECK(error == 0, "clock_nanosleep: ", std::strerror(error));
  return x;
}

// Conservative: libtorch takes it for an operator with side effects, so that freezing and
// optimising neither fold it, nor merge two calls, nor leave one out whose result isn't used.
TORCH_LIBRARY(millrace, library) {
  library.def(torch::schema("millrace::delay(Tensor x, float setup_us, float row_us) -> Tensor",
                            c10::AliasAnalysisKind::CONSERVATIVE),
              Delay);
}

}  // namespace
}  // namespace millrace
