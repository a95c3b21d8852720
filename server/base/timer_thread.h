// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/base/timer.h"

namespace millrace {

// The one timer thread. Thread-safe.
class TimerThread final : public Timer {
 public:
  explicit TimerThread(Clock& clock);

  // Forgets what is scheduled and joins the thread.
  ~TimerThread() override ABSL_LOCKS_EXCLUDED(mutex_);

  // Timer.
  Id Schedule(absl::Time when, absl::AnyInvocable<void()> callback) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Cancel(const Id& id) override ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(const Id& id) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void RunOne(std::map<Id, absl::AnyInvocable<void()>>::iterator next)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Clock& clock_;
  Mutex mutex_;
  CondVar changed_;
  CondVar finished_;
  std::map<Id, absl::AnyInvocable<void()>> scheduled_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t running_number_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread::id thread_id_ ABSL_GUARDED_BY(mutex_);
  Thread thread_;  // Last: it uses all of the above.
};

}  // namespace millrace
