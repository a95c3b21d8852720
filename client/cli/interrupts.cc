// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/interrupts.h"

#include <signal.h>

#include <atomic>

namespace millrace {
inline namespace client {
namespace {

std::atomic<bool> interrupted = false;
std::atomic<sem_t*> to_wake = nullptr;
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<sem_t*>::is_always_lock_free);

void TakeSignal(int) {
  for (const int each : {SIGINT, SIGTERM}) signal(each, SIG_DFL);
  interrupted = true;
  if (sem_t* const wake = to_wake; wake != nullptr) sem_post(wake);
}

}  // namespace

void ListenForInterrupts(sem_t* wake) {
  interrupted = false;
  to_wake = wake;
  struct sigaction action = {};
  action.sa_handler = TakeSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool Interrupted() { return interrupted; }

void WakeNobody() { to_wake = nullptr; }

}  // namespace client
}  // namespace millrace
