// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
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
#include "server/replica/model_template.h"
#include "server/replica/replica.h"

namespace millrace {

// What becomes of a model whose rows get other results in a batch than alone.
enum class BatchCheck { kSingleRows, kRefuseModel, kUnchecked };

// The replicas of one model version, the template they are forked from, and the dispatcher they
// pull from. Thread-safe.
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
    std::vector<WarmupSample> warmup;
    std::vector<ReplicaPlacement> replicas;
    Dispatcher::Options dispatch;
    size_t most_request_bytes = 64 << 20;  // Sizes the buffers where a model's dims are not fixed.
    absl::Duration load_timeout = absl::Minutes(10);
    BatchCheck batch_check = BatchCheck::kSingleRows;
    bool background = false;  // Load at first with the cores that nobody else wants.
    int cancel_event = -1;    // An eventfd: once it is readable, Create() gives up. -1: none.
    // How long a batch may run; infinite: see ExecutionLimit.
    absl::Duration execution_limit = absl::InfiniteDuration();
  };
  // All of it outlives the pool.
  struct Context {
    Clock* clock;
    Timer* timer;
    CoreLeases* leases;
    MemoryBudget* memory;  // Of Dispatcher::Options::memory, too.
    ModelMetrics* metrics;
  };

  // Loads the model and starts its replicas. Blocks until every replica serves or has failed once;
  // an error when none serves.
  static absl::StatusOr<std::unique_ptr<ReplicaPool>> Create(Options options, Context context);

  // Answers what waits with UNAVAILABLE and ends the processes.
  ~ReplicaPool();

  Dispatcher& dispatcher() { return *dispatcher_; }

  // How many replicas can serve now.
  int ready_replicas() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Why no replica can serve; OK when one can.
  absl::Status readiness() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Why each run has one row only; empty where it may have as many as the model takes.
  std::string single_rows() const ABSL_LOCKS_EXCLUDED(mutex_);
  // How long each running batch has been running.
  std::vector<absl::Duration> busy_for() const;
  // The processes of the template and the replicas; 0 for one that is just being replaced.
  std::vector<pid_t> pids() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  ReplicaPool(Options options, Context context);

  absl::Status Start();
  LoadCommand MakeLoadCommand(bool background) const;
  // The template thread: loads, waits for the template's death, loads again.
  void KeepTemplate() ABSL_LOCKS_EXCLUDED(mutex_);
  void LoadTemplate(bool background) ABSL_LOCKS_EXCLUDED(mutex_);
  // What follows from LoadedReply::batching: an error, or single rows.
  absl::Status Heed(const absl::Status& batching) ABSL_LOCKS_EXCLUDED(mutex_);
  // Tells the dispatcher how long the samples of the warm-up ran; see LoadedReply.
  void TellCosts(const std::vector<int64_t>& warmup_ns, ReplicaKind kind);
  // Sleeps until the template dies or the pool is to end.
  void WatchTemplate(const ModelTemplate& watched);
  absl::StatusOr<ForkedReplica> Fork(const ForkCommand& command) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetReplicaState(int replica, const absl::Status& state) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status FirstError() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const Context context_;
  const UniqueFd stop_event_;
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
  std::vector<absl::Status> replica_states_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> replica_tried_ ABSL_GUARDED_BY(mutex_);

  std::unique_ptr<Thread> template_thread_;
  std::vector<std::unique_ptr<Replica>> replicas_;  // Constant between Start() and destruction.
};

}  // namespace millrace
