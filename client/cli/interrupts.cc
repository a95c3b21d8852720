// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/interrupts.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cerrno>

namespace millrace {
inline namespace client {
namespace {

std::atomic<bool> interrupted = false;
std::atomic<sem_t*> to_wake = nullptr;
std::atomic<int> event = -1;  // Readable once the run is interrupted.
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<sem_t*>::is_always_lock_free &&
              std::atomic<int>::is_always_lock_free);

void TakeSignal(int) {
  for (const int each : {SIGINT, SIGTERM}) signal(each, SIG_DFL);
  interrupted = true;
  const int error = errno;
  eventfd_write(event, 1);
  errno = error;
  if (sem_t* const wake = to_wake; wake != nullptr) sem_post(wake);
}

}  // namespace

void ListenForInterrupts(sem_t* wake) {
  interrupted = false;
  to_wake = wake;
  if (event < 0) event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  eventfd_t before = 0;
  eventfd_read(event, &before);
  struct sigaction action = {};
  action.sa_handler = TakeSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool Interrupted() { return interrupted; }

void WakeNobody() { to_wake = nullptr; }

bool WaitForInput(int fd) {
  pollfd fds[] = {{.fd = fd, .events = POLLIN, .revents = 0},
                  {.fd = event, .events = POLLIN, .revents = 0}};
  while (!Interrupted()) {
    if (poll(fds, 2, -1) > 0 && fds[0].revents != 0) return true;
  }
  return false;
}

}  // namespace client
}  // namespace millrace
