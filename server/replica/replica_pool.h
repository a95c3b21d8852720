// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
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
#include "server/inference/execution_mode.h"
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
    ExecutionMode mode;
    UniqueFd model_file;
    bool optimize = true;        // Freeze and optimise a TorchScript module.
    bool inference_mode = true;  // Else no_grad.
    int inter_op_threads = 1;
    SandboxMode sandbox = SandboxMode::kOn;
    uint64_t memory_limit_bytes = 0;  // Of each process; 0: automatic.
    bool flush_denormals = false;
    bool deterministic = false;
    std::vector<WarmupSample> warmup;
    std::vector<int64_t> further_batch_sizes;  // See LoadCommand.
    std::vector<std::byte> warmup_data;        // What the samples take rows from.
    // Of a batch; 0: as many as the signature allows. It counts only where the outputs are of known
    // sizes, or a request of more rows couldn't be run in parts.
    int64_t most_rows = 0;
    // Where replicas may run: the first `start` of them do from the start on.
    std::vector<ReplicaPlacement> replicas;
    int start = 1;
    // How many such places Move() may bring; 0: as many as there are.
    size_t most_places = 0;
    bool log_moves = true;  // Tell the log of each Move() that moved anybody.
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

  // Ends a Resize(), Restart() or Move() that waits for a replica to start, with CANCELLED, and has
  // later ones return that at once. A replica that is just being replaced is replaced all the same.
  void StopMoves() ABSL_LOCKS_EXCLUDED(mutex_);

  // Gives the pool other places, as in Options, of which the first Options::most_places count.
  // There are `start` replicas then, one at least; but a pool that is scaled, or whose number was
  // changed by Resize(), keeps its number as far as there are places. Those that aren't where they
  // shall be are replaced one after the other, with one more for as long as that lasts, so that
  // there is never one less. Blocks as Resize(). Where a replacement can't start, the error says
  // why, and those after it stay where they are.
  absl::Status Move(std::vector<ReplicaPlacement> places, int start, absl::Duration timeout)
      ABSL_LOCKS_EXCLUDED(resizing_, mutex_);

  // How many replicas there are to be, and how many there may be.
  int replicas() const ABSL_LOCKS_EXCLUDED(mutex_);
  int most_replicas() const ABSL_LOCKS_EXCLUDED(mutex_);

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

  // What those see who look on: without a lock that a batch on its way takes.
  struct Glance {
    int ready = 0;
    std::vector<absl::Duration> busy_for;
    std::vector<ModelGauges::Replica> replicas;
    std::vector<pid_t> pids;  // Of the template and the replicas, as far as there are processes.
  };
  Glance glance() const ABSL_LOCKS_EXCLUDED(mutex_);

  // What a replica does, for those who look on, as in a Glance.
  struct Lane {
    int index;
    pid_t pid;           // 0 while there is no process.
    absl::Status state;  // OK: it serves.
    std::optional<absl::Duration> busy_for;
    int64_t rows;  // Of the batch that it runs.
    ReplicaPlacement placement;
  };
  std::vector<Lane> lanes() const ABSL_LOCKS_EXCLUDED(mutex_);

  // A replica that was lost, or couldn't start.
  struct Loss {
    absl::Time when;  // By the pool's clock.
    int replica;
    std::string cause;
  };
  // The last kMostLosses of them, the newest last.
  static constexpr size_t kMostLosses = 16;
  std::vector<Loss> recent_losses() const ABSL_LOCKS_EXCLUDED(mutex_);

  // How many replicas can serve now.
  int ready_replicas() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Why requests shouldn't be sent here; see HealthOf().
  absl::Status readiness() const ABSL_LOCKS_EXCLUDED(mutex_);
  // When readiness() will be an error, if no replica gets ready until then; InfiniteFuture() where
  // one is.
  absl::Time unready_from() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Why each run has one row only; empty where it may have as many as the model takes.
  std::string single_rows() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The processes of the template and the replicas; 0 for one that is just being replaced.
  std::vector<pid_t> pids() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  ReplicaPool(Options options, Context context, UniqueFd warmup_data);

  absl::Status Start();
  LoadCommand MakeLoadCommand(bool background) const;
  // The template thread: loads, waits for the template's death, loads again. It never waits for who
  // resizes the pool, since that one may wait for a template.
  void KeepTemplate() ABSL_LOCKS_EXCLUDED(mutex_);
  void LoadTemplate(bool background) ABSL_LOCKS_EXCLUDED(mutex_);
  // The event that ends a load: who called Create() may give up the first one. A model that has
  // been loaded needs its templates until the pool ends, also while the server drains.
  int LoadEndsBy() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What follows from LoadedReply::batching: an error, or single rows.
  absl::Status Heed(const absl::Status& batching) ABSL_LOCKS_EXCLUDED(mutex_);
  // Tells the dispatcher how long the samples of the warm-up ran; see LoadedReply.
  void TellCosts(const std::vector<int64_t>& warmup_ns, ReplicaKind kind);
  // Forks the replica of a slot as soon as there is a template.
  absl::StatusOr<ForkedReplica> Fork(ForkCommand command, const std::string& name)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits for a template other than `lost`, which is null or was found dead. CANCELLED where the
  // slot's replica is to end.
  absl::StatusOr<std::shared_ptr<ModelTemplate>> WaitForTemplate(
      size_t slot, const std::shared_ptr<ModelTemplate>& lost) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetReplicaState(int replica, const absl::Status& state) ABSL_LOCKS_EXCLUDED(mutex_);
  // Says that there is no template, and why.
  void LoseTemplate(const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FirstError() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A replica has come, gone or changed.
  void NoteReadiness() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // A place for a replica.
  struct Slot {
    std::unique_ptr<Replica> replica;                            // Null where there is none.
    ReplicaPlacement placement;                                  // Where it runs.
    absl::Status state = absl::UnavailableError("is starting");  // OK: it serves.
    bool tried = false;                                          // It has served, or has failed to.
    bool waits = false;                                          // For a template.

    bool in_use() const { return replica != nullptr; }
    // It is being started for the first time, and nothing has come in between.
    bool is_starting() const { return in_use() && !tried && !waits; }
  };
  const absl::Status& StateOf(const Slot& slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return slot.waits ? template_state_ : slot.state;
  }

  // Starts a replica; WaitUntilSettled() tells what became of it.
  void Add(size_t slot, const ReplicaPlacement& placement) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status WaitUntilSettled(size_t slot, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // The same, and waits also for a template that is being loaded again.
  absl::Status WaitUntilTried(size_t slot, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends a replica, after its batch or at the deadline.
  void Remove(size_t slot, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status ResizeTo(int count, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(resizing_)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Grow(size_t from, size_t to, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(resizing_) ABSL_LOCKS_EXCLUDED(mutex_);
  static bool IsInPlace(const Slot& slot, const ReplicaPlacement& place);
  // Replaces those of the first `count` that aren't where they shall be; how many those are.
  absl::StatusOr<int> MoveFirst(size_t count, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(resizing_) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Replace(size_t slot, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(resizing_)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Sees to it that there are events for so many slots.
  absl::Status MakeStopEvents(size_t slots) ABSL_LOCKS_EXCLUDED(mutex_);
  // CANCELLED after StopMoves().
  absl::Status CheckMoves() const ABSL_LOCKS_EXCLUDED(mutex_);
  ReplicaPlacement PlaceOf(size_t slot) const ABSL_LOCKS_EXCLUDED(mutex_);
  // The scaler thread, where the pool is scaled: looks again and again until the pool ends.
  void KeepScaled() ABSL_LOCKS_EXCLUDED(resizing_, mutex_);
  // Grows or shrinks the pool where it is too busy or too idle.
  void Scale(ReplicaScaler& scaler) ABSL_LOCKS_EXCLUDED(resizing_, mutex_);

  const Options options_;
  const Context context_;
  const UniqueFd warmup_data_;  // See SealedBytes; invalid: there is none.
  UniqueFd stop_event_;
  ExecutionLimit limit_;
  std::unique_ptr<ModelMemory> memory_;
  std::shared_ptr<Dispatcher> dispatcher_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<ModelTemplate> template_ ABSL_GUARDED_BY(mutex_);
  absl::Status template_state_ ABSL_GUARDED_BY(mutex_) = absl::UnavailableError("is loading");
  std::string single_rows_ ABSL_GUARDED_BY(mutex_);
  bool loaded_once_ ABSL_GUARDED_BY(mutex_) = false;
  bool started_ ABSL_GUARDED_BY(mutex_) =
      false;  // Start() is over: requests may wait for replicas.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool moves_stopped_ ABSL_GUARDED_BY(mutex_) = false;
  // Where replicas shall run, and where they do: those in use are the first, and there is one slot
  // more than there may be places.
  std::vector<ReplicaPlacement> places_ ABSL_GUARDED_BY(mutex_);
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);
  std::vector<UniqueFd> stop_events_ ABSL_GUARDED_BY(mutex_);  // Of the first slots.
  std::deque<Loss> losses_ ABSL_GUARDED_BY(mutex_);            // See recent_losses().
  // Since when no replica can serve; InfiniteFuture() while one can.
  absl::Time unready_since_ ABSL_GUARDED_BY(mutex_);

  Mutex resizing_;  // One who grows or shrinks the pool at a time; taken before mutex_.
  int planned_ ABSL_GUARDED_BY(resizing_);  // How many there were to be, but for Resize().
  std::unique_ptr<Thread> template_thread_;
  std::unique_ptr<Thread> scaler_thread_;  // Null where the pool isn't scaled.
};

}  // namespace millrace
