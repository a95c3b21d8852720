// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/thread.h"

#include <pthread.h>
#include <sched.h>

#include <utility>

namespace millrace {
namespace {

void PinCurrentThread(const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu : cpus) CPU_SET(cpu, &set);
  // A refused mask leaves the thread floating, which is slower and still right.
  sched_setaffinity(0, sizeof(set), &set);
}

}  // namespace

Thread::Thread(const std::string& name, absl::AnyInvocable<void()> body, std::vector<int> cpus)
    : thread_(
          [name = name.substr(0, 15), body = std::move(body), cpus = std::move(cpus)]() mutable {
            pthread_setname_np(pthread_self(), name.c_str());
            PinCurrentThread(cpus);
            body();
          }) {}

Thread::~Thread() { thread_.join(); }

}  // namespace millrace
