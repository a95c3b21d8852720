// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/connection_queue.h"

#include <utility>

namespace millrace {

ConnectionQueue::ConnectionQueue(int threads, size_t limit) : limit_(limit) {
  for (int i = 0; i < threads; ++i) {
    threads_.push_back(std::make_unique<Thread>("http", [this] { Run(); }));
  }
}

void ConnectionQueue::enqueue(std::function<void()> serve) {
  MutexLock lock(mutex_);
  while (line_.size() >= limit_) removed_.Wait(mutex_);
  line_.push_back(std::move(serve));
  added_.NotifyOne();
}

void ConnectionQueue::shutdown() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    added_.NotifyAll();
  }
  threads_.clear();
}

void ConnectionQueue::Run() {
  for (;;) {
    std::function<void()> serve;
    {
      MutexLock lock(mutex_);
      while (line_.empty() && !stopping_) added_.Wait(mutex_);
      if (line_.empty()) return;
      serve = std::move(line_.front());
      line_.pop_front();
      removed_.NotifyOne();
    }
    serve();
  }
}

}  // namespace millrace
