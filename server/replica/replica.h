// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/random/random.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/base/unique_fd.h"
#include "server/channel/mailbox.h"
#include "server/channel/model_memory.h"
#include "server/dispatch/dispatcher.h"
#include "server/metrics/model_metrics.h"
#include "server/placement/placement.h"
#include "server/replica/execution_limit.h"
#include "server/replica/model_template.h"
#include "server/replica/restart_backoff.h"

namespace millrace {

// One replica of a model: a worker process, and the thread that starts it, takes its results, ends
// it when it hangs and replaces it when it dies. Thread-safe.
//
// Invariants:
//  1. A batch that Run() took ends in exactly one Finish() or Requeue().
//  2. A dead process's batch is given back only after the process has really ended, so nobody
//     writes into its buffer any more; what a process completes after it was found hung is lost.
class Replica final : public BatchRunner {
 public:
  struct Options {
    int index = 0;        // Its number in the pool, and its mailbox.
    int stop_event = -1;  // An eventfd that outlives it and is nobody else's meanwhile.
    ReplicaPlacement placement;
    absl::Duration start_timeout = absl::Minutes(10);
    RestartBackoff::Options backoff = {};
  };
  // What a replica uses; all of it outlives the replica.
  struct Context {
    const ModelSignature* signature;
    ModelMemory* memory;
    Dispatcher* dispatcher;
    ModelMetrics* metrics;
    Clock* clock;
    ExecutionLimit* limit;
    // May wait for the template, at most until the replica is to end.
    std::function<absl::StatusOr<ForkedReplica>(const ForkCommand&, std::string name)> fork;
    // How long the warm-up's samples ran, where the replica ran them; see ReadyReply.
    std::function<void(const std::vector<int64_t>& warmup_ns, ReplicaKind kind)> on_warm;
    std::function<void(int replica, const absl::Status& state)> on_state;  // OK: it serves.
  };

  Replica(Options options, Context context);

  // Ends the process; a batch that it runs is given back. Blocks until that is done.
  ~Replica() override;

  // Has the process end at once, as the destructor does. Never blocks.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes no batch any more, and ends the process when the batch that it runs is done. Blocks until
  // then, at most until `deadline`; true where it is done.
  bool Retire(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether it is to end, at once or after its batch.
  bool is_ending() const ABSL_LOCKS_EXCLUDED(mutex_);

  // BatchRunner.
  void Run(std::unique_ptr<Batch> batch) override ABSL_LOCKS_EXCLUDED(mutex_);
  int lease_cores() const override { return options_.placement.slots(); }

  // The process, 0 while there is none.
  pid_t pid() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The same without the lock that Run() takes, for those who look on.
  pid_t pid_seen() const { return pid_seen_.load(std::memory_order_relaxed); }
  std::optional<absl::Duration> busy_seen() const;
  // The rows of the batch that runs, or of the last one.
  int64_t rows_seen() const { return rows_seen_.load(std::memory_order_relaxed); }
  // For how long the running batch has been running; nullopt when none is.
  std::optional<absl::Duration> busy_for() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether that is clearly longer than it may: then the replica should have been replaced.
  bool overdue() const ABSL_LOCKS_EXCLUDED(mutex_) { return TimeLeft() < -absl::Seconds(1); }

 private:
  void Live() ABSL_LOCKS_EXCLUDED(mutex_);
  // Starts a process and waits until it can serve.
  absl::Status StartProcess() ABSL_LOCKS_EXCLUDED(mutex_);
  // Sleeps until the new process has said something or the time for it is over. False when the
  // replica is to stop.
  bool WaitForReply();
  // Takes results until the process dies or the replica is to stop.
  void Serve() ABSL_LOCKS_EXCLUDED(mutex_);
  // Sleeps until something happens, or for a while. False when the process has died or hangs, or
  // the replica is to stop, or has left.
  bool WaitForEvent() ABSL_LOCKS_EXCLUDED(mutex_);
  // How long the running batch may go on; infinite where none runs.
  absl::Duration TimeLeft() const ABSL_LOCKS_EXCLUDED(mutex_);
  // False when the process has completed what it never got.
  bool FinishBatch() ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the process and gives its batch back; says how it ended, as End() does.
  std::string BuryProcess() ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the process; says how it ended, and by what incident more is found in the log.
  std::string End() ABSL_LOCKS_EXCLUDED(mutex_);
  std::unique_ptr<Batch> TakeBatch() ABSL_LOCKS_EXCLUDED(mutex_);
  bool stopping() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits, at most until the replica is to end.
  void Pause(absl::Duration duration) ABSL_LOCKS_EXCLUDED(mutex_);
  std::string Name() const;

  static constexpr int64_t kIdle = std::numeric_limits<int64_t>::max();

  const Options options_;
  const Context context_;
  Mailbox mailbox_;
  // The thread's own.
  std::optional<ForkedReplica> process_;
  absl::Time started_;  // When the process was forked, or that was tried.
  bool hangs_ = false;
  bool served_ = false;  // The process has run a batch without an error.
  bool leaves_ = false;  // It gets no batch after the one that it has.
  bool left_ = false;    // It has none, and gets none.
  RestartBackoff backoff_;
  absl::BitGen random_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::unique_ptr<Batch> batch_ ABSL_GUARDED_BY(mutex_);
  pid_t pid_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<pid_t> pid_seen_{0};             // `pid_`
  std::atomic<int64_t> busy_since_ns_{kIdle};  // When `batch_` was started.
  std::atomic<int64_t> rows_seen_{0};          // Of `batch_`.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool retiring_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;  // The thread has nothing more to do.
  Thread thread_;                               // Last: it uses all of the above.
};

}  // namespace millrace
