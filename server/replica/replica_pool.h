// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/sandbox_mode.h"
#include "server/base/thread.h"
#include "server/base/timer.h"
#include "server/base/unique_fd.h"
#include "server/channel/model_memory.h"
#include "server/channel/worker_protocol.h"
#include "server/dispatch/dispatcher.h"
#include "server/inference/engine_kind.h"
#include "server/inference/warmup.h"
#include "server/metrics/model_metrics.h"
#include "server/placement/placement.h"
#include "server/replica/execution_limit.h"
#include "server/replica/model_health.h"
#include "server/replica/model_template.h"
#include "server/replica/replica.h"
#include "server/replica/replica_scaler.h"

namespace millrace {

// What becomes of a model whose rows get other results in a batch than alone.
enum class BatchCheck { kSingleRows, kRefuseModel, kUnchecked };

// The replicas of one model version, the template they are forked from, and the dispatcher they
// pull from. It grows and shrinks while it serves. Thread-safe.
class ReplicaPool {
 public:
  struct Options {
    std::string worker_program;
    std::shared_ptr<const ModelSignature> signature;
    EngineKind engine = EngineKind::kTorchScript;
    UniqueFd model_file;
    bool optimize = true;        // Freeze and optimise a TorchScript module.
    bool inference_mode = true;  // Else no_grad.
    int inter_op_threads = 1;
    SandboxMode sandbox = SandboxMode::kOn;
    uint64_t memory_limit_bytes = 0;  // Of each process; 0: automatic.
    std::vector<WarmupSample> warmup;
    // Where replicas may run: the first `start` of them do from the start on.
    std::vector<ReplicaPlacement> replicas;
    int start = 1;
    // How many there are is then decided by how busy they are; nullopt: by Resize() alone.
    std::optional<ReplicaScaler::Options> scaling;
    Dispatcher::Options dispatch;
    size_t most_request_bytes = 64 << 20;  // Sizes the buffers where a model's dims are not fixed.
    absl::Duration load_timeout = absl::Minutes(10);
    BatchCheck batch_check = BatchCheck::kSingleRows;
    bool background = false;  // Load at first with the cores that nobody else wants.
    int cancel_event = -1;    // An eventfd: once it is readable, Create() gives up. -1: none.
    // How long a batch may run; infinite: see ExecutionLimit.
    absl::Duration execution_limit = absl::InfiniteDuration();
    RestartBackoff::Options backoff = {};
    // How long there may be no replica that can serve, so that one that is just replaced isn't
    // taken for a failure.
    absl::Duration unhealthy_after = absl::Seconds(2);
  };
  // All of it outlives the pool.
  struct Context {
    Clock* clock;
    Timer* timer;
    CoreLeases* leases;
    MemoryBudget* memory;  // Of Dispatcher::Options::memory, too.
    Preparers* preparers;  // Of Dispatcher::Options::preparers, too.
    ModelMetrics* metrics;
    // A replica can serve, or can't any more. Must not block. May be empty.
    std::function<void()> on_change;
  };

  // Loads the model and starts its replicas. Blocks until every replica serves or has failed once;
  // an error when none serves.
  static absl::StatusOr<std::unique_ptr<ReplicaPool>> Create(Options options, Context context);

  // Answers what waits with UNAVAILABLE and ends the processes.
  ~ReplicaPool();

  Dispatcher& dispatcher() { return *dispatcher_; }

  // Grows or shrinks to `count` replicas. Blocks until new ones serve and those taken away have run
  // their batch, at most `timeout`; they are the last, and no request is lost. INVALID_ARGUMENT for
  // a count that isn't between 1 and most_replicas(). Where a new one can't start it is given up,
  // and the error says why.
  absl::Status Resize(int count, absl::Duration timeout) ABSL_LOCKS_EXCLUDED(resizing_, mutex_);

  // Replaces the replicas by new ones, one after the other. As Resize().
  absl::Status Restart(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(resizing_, mutex_);

  // How many replicas there are to be, and how many there may be.
  int replicas() const ABSL_LOCKS_EXCLUDED(mutex_);
  int most_replicas() const { return static_cast<int>(options_.replicas.size()); }

  // A replica as an operator sees it.
  struct ReplicaInfo {
    int index;
    pid_t pid;           // 0 while there is no process.
    absl::Status state;  // OK: it serves.
    std::optional<absl::Duration> busy_for;
    bool overdue;  // Its batch runs for longer than it may, and it isn't replaced yet.
    ReplicaPlacement placement;
  };
  std::vector<ReplicaInfo> List() const ABSL_LOCKS_EXCLUDED(mutex_);

  // How many replicas can serve now.
  int ready_replicas() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Why requests shouldn't be sent here; see HealthOf().
  absl::Status readiness() const ABSL_LOCKS_EXCLUDED(mutex_);
  // When readiness() will be an error, if no replica gets ready until then; InfiniteFuture() where
  // one is.
  absl::Time unready_from() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Why each run has one row only; empty where it may have as many as the model takes.
  std::string single_rows() const ABSL_LOCKS_EXCLUDED(mutex_);
  // How long each running batch has been running.
  std::vector<absl::Duration> busy_for() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The processes of the template and the replicas; 0 for one that is just being replaced.
  std::vector<pid_t> pids() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  ReplicaPool(Options options, Context context);

  absl::Status Start();
  LoadCommand MakeLoadCommand(bool background) const;
  // The template thread: loads, waits for the template's death, loads again.
  void KeepTemplate() ABSL_LOCKS_EXCLUDED(mutex_);
  void LoadTemplate(bool background) ABSL_LOCKS_EXCLUDED(mutex_);
  // The event that ends a load: who called Create() may give up the first one. A model that has
  // been loaded needs its templates until the pool ends, also while the server drains.
  int LoadEndsBy() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What follows from LoadedReply::batching: an error, or single rows.
  absl::Status Heed(const absl::Status& batching) ABSL_LOCKS_EXCLUDED(mutex_);
  // Returns when the template has died or the pool is to end; scales the pool meanwhile.
  void Watch(ModelTemplate& loaded) ABSL_LOCKS_EXCLUDED(resizing_, mutex_);
  // Tells the dispatcher how long the samples of the warm-up ran; see LoadedReply.
  void TellCosts(const std::vector<int64_t>& warmup_ns, ReplicaKind kind);
  absl::StatusOr<ForkedReplica> Fork(const ForkCommand& command, std::string name)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void SetReplicaState(int replica, const absl::Status& state) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status FirstError() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A replica has come, gone or changed.
  void NoteReadiness() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // A place for a replica.
  struct Slot {
    std::unique_ptr<Replica> replica;                            // Null where there is none.
    absl::Status state = absl::UnavailableError("is starting");  // OK: it serves.
    bool tried = false;                                          // It has served, or has failed to.
  };

  // Starts a replica; WaitUntilTried() tells what became of it.
  void Add(size_t slot) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status WaitUntilTried(size_t slot, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends a replica, after its batch or at the deadline.
  void Remove(size_t slot, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Grow(size_t from, size_t to, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(resizing_) ABSL_LOCKS_EXCLUDED(mutex_);
  // Grows or shrinks the pool where it is too busy or too idle.
  void Scale(ReplicaScaler& scaler) ABSL_LOCKS_EXCLUDED(resizing_, mutex_);

  const Options options_;
  const Context context_;
  UniqueFd stop_event_;
  std::vector<UniqueFd> replica_stop_events_;  // One for each place, whoever is there.
  ExecutionLimit limit_;
  std::unique_ptr<ModelMemory> memory_;
  std::shared_ptr<Dispatcher> dispatcher_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<ModelTemplate> template_ ABSL_GUARDED_BY(mutex_);
  absl::Status template_state_ ABSL_GUARDED_BY(mutex_) = absl::UnavailableError("is loading");
  std::string single_rows_ ABSL_GUARDED_BY(mutex_);
  bool loaded_once_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);  // Those in use are the first.
  // Since when no replica can serve; InfiniteFuture() while one can.
  absl::Time unready_since_ ABSL_GUARDED_BY(mutex_);

  Mutex resizing_;  // One who grows or shrinks the pool at a time; taken before mutex_.
  std::unique_ptr<Thread> template_thread_;
};

}  // namespace millrace
