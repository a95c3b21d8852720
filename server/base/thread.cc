// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/thread.h"

#include <pthread.h>
#include <sched.h>

#include <utility>

namespace millrace {

void PinThisThread(const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu : cpus) CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof(set), &set);
}

std::vector<int> CpusOf(pid_t pid) {
  std::vector<int> cpus;
  cpu_set_t set;
  if (sched_getaffinity(pid, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

Thread::Thread(const std::string& name, absl::AnyInvocable<void()> body)
    : thread_([name = name.substr(0, 15), body = std::move(body)]() mutable {
        pthread_setname_np(pthread_self(), name.c_str());
        body();
      }) {}

Thread::~Thread() { thread_.join(); }

}  // namespace millrace
