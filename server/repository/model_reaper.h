// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/base/work_queue.h"
#include "server/repository/served_model.h"

namespace millrace {

// Ends models on a thread of its own. The last share of a model may be dropped anywhere, also by
// the replica that has just answered the last request; its end joins the replicas' threads, so it
// must happen elsewhere. Thread-safe.
class ModelReaper {
 public:
  // `clock` and `timer` outlive the reaper.
  ModelReaper(Clock& clock, Timer& timer);

  // Ends every model, whoever still has a share. Blocks. REQUIRES: nobody submits requests any
  // more.
  ~ModelReaper();

  // Shares `model`: when the last share is dropped, it is ended, and then `ended` is called, on the
  // reaper's thread.
  std::shared_ptr<ServedModel> Share(std::unique_ptr<ServedModel> model,
                                     absl::AnyInvocable<void()> ended) ABSL_LOCKS_EXCLUDED(mutex_);

  // A model gives way to another: it finishes what it has accepted, unless it has no replica that
  // could; then what it has accepted is answered UNAVAILABLE after a while.
  void Retire(const std::shared_ptr<ServedModel>& model) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Shared {
    std::unique_ptr<ServedModel> model;
    absl::AnyInvocable<void()> ended;
    std::optional<Timer::Id> next_look;  // At a retired one.
  };

  void LookAfter(const std::weak_ptr<ServedModel>& retired) ABSL_LOCKS_EXCLUDED(mutex_);
  void Reap(ServedModel* model) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndAll() ABSL_LOCKS_EXCLUDED(mutex_);

  Clock& clock_;
  Timer& timer_;
  Mutex mutex_;
  CondVar changed_;
  std::map<ServedModel*, Shared> alive_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  WorkQueue queue_;  // Last: its thread uses all of the above.
};

}  // namespace millrace
