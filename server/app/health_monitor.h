// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/repository/model_repository.h"

namespace millrace {

// Looks at the models whenever one of them may have become ready or unready, and regularly, since
// one that stalls says nothing; and tells what it finds. Thread-safe.
class HealthMonitor {
 public:
  // All of it outlives the monitor's thread.
  struct Context {
    Clock* clock;
    const ModelRepository* repository;
    std::function<absl::Status()> server_readiness;
    // Why the server ("") or the model of that name takes no requests, or OK; called by Look().
    std::function<void(const std::string& name, const absl::Status& state)> tell;
  };

  explicit HealthMonitor(Context context);

  // Something may have changed. Never blocks.
  void Poke() ABSL_LOCKS_EXCLUDED(mutex_);

  // Looks at once, on the caller's thread. Returns when it should be looked again, if nobody pokes.
  absl::Time Look() ABSL_LOCKS_EXCLUDED(looking_);

  // Ends the thread. May be called again; the monitor may still be poked.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_, looking_);

  const Context context_;
  Mutex looking_;  // So that nobody tells what was true before.
  Mutex mutex_;
  CondVar changed_;
  bool poked_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<Thread> thread_;  // Last: it uses all of the above.
};

}  // namespace millrace
