// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <httplib.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/thread.h"

namespace millrace {

// A fixed number of threads behind a bounded line of connections. Thread-safe.
class ConnectionQueue final : public httplib::TaskQueue {
 public:
  // Starts `threads` threads; at most `limit` connections wait for one.
  ConnectionQueue(int threads, size_t limit);
  ~ConnectionQueue() override = default;

  // Adds a connection to the line; blocks while that is full, so that no more are accepted.
  void enqueue(std::function<void()> serve) override ABSL_LOCKS_EXCLUDED(mutex_);

  // Serves those in the line and joins the threads. Blocks.
  void shutdown() override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const size_t limit_;
  Mutex mutex_;
  CondVar added_;
  CondVar removed_;
  std::deque<std::function<void()>> line_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Thread>> threads_;  // Last: they use all of the above.
};

}  // namespace millrace
