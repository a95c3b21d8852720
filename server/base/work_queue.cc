// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/work_queue.h"

#include <utility>

namespace millrace {

WorkQueue::WorkQueue(const std::string& name, int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.push_back(std::make_unique<Thread>(name, [this] { Run(); }));
  }
}

WorkQueue::~WorkQueue() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
    changed_.NotifyAll();
  }
  threads_.clear();
}

void WorkQueue::Add(absl::AnyInvocable<void()> task) {
  MutexLock lock(mutex_);
  tasks_.push_back(std::move(task));
  changed_.NotifyOne();
}

void WorkQueue::Run() {
  for (;;) {
    absl::AnyInvocable<void()> task;
    {
      MutexLock lock(mutex_);
      while (tasks_.empty() && !ending_) changed_.Wait(mutex_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace millrace
