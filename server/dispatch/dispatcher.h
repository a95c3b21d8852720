// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/dispatch/batch.h"
#include "server/dispatch/batch_caps.h"
#include "server/dispatch/batch_policy.h"
#include "server/dispatch/claimant.h"
#include "server/dispatch/core_leases.h"
#include "server/dispatch/cost_table.h"
#include "server/dispatch/failing_flows.h"
#include "server/dispatch/memory_budget.h"
#include "server/dispatch/overload_controller.h"
#include "server/dispatch/pending_request.h"
#include "server/dispatch/queue_policy.h"
#include "server/dispatch/request_limits.h"
#include "server/dispatch/return_predictor.h"
#include "server/dispatch/runners.h"
#include "server/dispatch/stage_times.h"
#include "server/dispatch/staging_area.h"
#include "server/dispatch/suspect_payloads.h"
#include "server/dispatch/waiting_flows.h"
#include "server/dispatch/waiting_room.h"
#include "server/inference/preparation.h"
#include "server/metrics/model_metrics.h"

namespace millrace {

// Queues the requests of one model, gathers them in batches and gives the batches to whichever
// replica is free first. Who is let in is decided by WaitingRoom, who is next by FairQueue, who
// goes back by StagingArea, when a batch goes by BatchPolicy, when a request is given up by
// RequestLimits; this class applies them. Thread-safe; owns no thread: the work is done
// on the threads that bring requests and results, and by the timer.
//
// Invariants:
//  1. Every request that Submit() took is answered exactly once.
//  2. The requests of a flow and a priority level get their places in batches in the order in which
//     they came, but for delayed ones; those that were in a batch whose replica died go first.
//  3. At most one staged batch per row shape waits; its rows are revocable until a replica takes
//     it. A free replica never waits while a batch may go.
//  4. A buffer is free as soon as its outputs are copied out, before any answer is sent.
//  5. Nothing outside is called under the lock.
class Dispatcher final : public Claimant,
                         public PreparationSource,
                         public std::enable_shared_from_this<Dispatcher> {
 public:
  struct Options {
    int64_t max_queue_rows = 128;  // Of each priority level that has no limit of its own.
    BatchPolicy policy = {};
    std::vector<QueuePolicy> levels = {QueuePolicy{}};  // Of priority, the highest first.
    // A request that has waited so long goes before those of higher levels.
    absl::Duration starvation_guard = absl::InfiniteDuration();
    OverloadController::Options overload = {};
    // Bytes of the payloads of requests that were let in and are not answered.
    int64_t max_queue_bytes = std::numeric_limits<int64_t>::max();
    MemoryBudget* memory = nullptr;  // The same over all models; null: no limit.
    // Replicas that may die while they run a request alone, until it is given up.
    int max_deaths = 3;
    // Prepare requests that need it; REQUIRED where any does. Rows of those in the queue are
    // prepared ahead up to `prepare_ahead`, and then as replicas take them.
    Preparers* preparers = nullptr;
    int64_t prepare_ahead = 1;

    // Rows that a level's queue holds.
    int64_t queue_rows(const QueuePolicy& level) const {
      return level.max_rows > 0 ? level.max_rows : max_queue_rows;
    }
  };

  // `buffers` are all free; `metrics`, `clock`, `timer`, `leases` and the memory budget outlive the
  // dispatcher.
  static std::shared_ptr<Dispatcher> Create(Options options,
                                            std::shared_ptr<const ModelSignature> signature,
                                            std::vector<BatchBuffer*> buffers, Clock& clock,
                                            Timer& timer, CoreLeases& leases,
                                            ModelMetrics& metrics);

  // What still waits is answered INTERNAL; see Stop().
  ~Dispatcher() override = default;

  // Takes a request. Never blocks; may start a batch and may answer requests. Where the request
  // waits at the door, its flow is told before this returns, and again when it has left the door.
  void Submit(std::shared_ptr<PendingRequest> request) ABSL_LOCKS_EXCLUDED(mutex_);

  // Drops what waits or is staged of a cancelled caller, answering it CANCELLED. What runs already
  // goes on. REQUIRES: caller.cancelled().
  void Cancel(const Caller& caller) ABSL_LOCKS_EXCLUDED(mutex_);

  // A replica that is ready; it may be given a batch before this returns.
  void AddRunner(BatchRunner* runner) ABSL_LOCKS_EXCLUDED(mutex_);

  // A replica that is to end gets no batch any more after this returns. True where it was idle: it
  // has left. Else it has a batch, or is being given one, and leaves with Finish() or Requeue().
  bool RetireRunner(BatchRunner* runner) ABSL_LOCKS_EXCLUDED(mutex_);

  // A batch has run and `runner` is free again. On success the outputs are copied out to the
  // members' answers; an error is the only member's answer, whose flow is then batched apart for a
  // while, and a batch of several is run again in halves, so that the one who caused it doesn't
  // spoil its neighbours. One that ran out of memory is halved down to single rows, and later
  // batches of its shape are smaller.
  void Finish(BatchRunner* runner, std::unique_ptr<Batch> batch,
              const absl::StatusOr<std::vector<OutputView>>& outputs, absl::Duration execute,
              int replica) ABSL_LOCKS_EXCLUDED(mutex_);

  // A replica died while it ran `batch`, and its process has ended. The batch runs again, filled
  // afresh: in halves, until the request whose fault it is is alone; that one is given up after
  // Options::max_deaths, and one with the same payload is run alone from then on. `ending` says how
  // the replica ended, e.g. "was killed by signal 11 (Segmentation fault)".
  void Requeue(BatchRunner* runner, std::unique_ptr<Batch> batch, const std::string& ending)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // A first guess of what a batch costs, from a warm-up.
  void ExpectCost(const RowShape& shape, ReplicaKind kind, int64_t rows, absl::Duration took)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Runs at most `rows` rows at a time, whatever the signature says. Call while nothing waits.
  void LimitRows(int64_t rows) ABSL_LOCKS_EXCLUDED(mutex_);

  // From now on a queue holds so many rows, and so many are prepared ahead: see the Options of
  // these names. For a model that has got more or fewer replicas.
  void SizeQueue(int64_t max_queue_rows, int64_t prepare_ahead) ABSL_LOCKS_EXCLUDED(mutex_);

  // No replica can serve, for the reason `why`. Where none is added by `from`, what waits then is
  // answered with it, and so is what comes until one is. Answers nothing itself.
  void LackReplicas(const absl::Status& why, absl::Time from) ABSL_LOCKS_EXCLUDED(mutex_);

  // Answers whatever waits, and later whatever comes, with `status`.
  void Stop(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  // Claimant.
  void TryAgain() override { Pump(); }

  // PreparationSource: a row of a request in the queue.
  absl::AnyInvocable<void()> NextPreparation() override ABSL_LOCKS_EXCLUDED(mutex_);

  struct Gauges {
    int64_t queued_rows = 0;
    int64_t queue_limit = 0;    // Rows that all levels' queues hold.
    absl::Duration oldest_age;  // Of a request that no replica has taken yet.
    int64_t in_flight = 0;      // Requests taken and not answered, parked ones included.
    int idle_runners = 0;
    size_t free_buffers = 0;
    int64_t parked = 0;             // Requests at the doors.
    int64_t waiting_requests = 0;   // Requests that no replica has taken, parked ones included.
    int64_t waiting_rows = 0;       // Of these in the queue and staged, and one each at the doors.
    int64_t batch_limit = 0;        // Rows that a batch takes at most.
    int64_t held_bytes = 0;         // See Options::max_queue_bytes.
    absl::Duration predicted_wait;  // Of a request that would come now.
    // Rows per second in full batches, of all replicas that may run at a time.
    double capacity = 0;
    double utilisation = 0;  // Busy time over time of the replicas, in the last seconds.
    bool overloaded = false;
    absl::Time last_finish;    // When a batch was done last; at first when the dispatcher was made.
    bool replica_due = false;  // A replica is idle and may run batches: what waits should go.
  };
  Gauges gauges() const ABSL_LOCKS_EXCLUDED(mutex_);

  // What batches cost, per shape and kind of replica; the shape that ran last first.
  std::vector<CostTable::Entry> costs() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Both, for those who look on: at most kGlanceAge old, and without the lock of those who bring
  // requests and results, unless none of them has come for so long.
  struct Glance {
    Gauges gauges;
    std::vector<CostTable::Entry> costs;
  };
  Glance glance() const ABSL_LOCKS_EXCLUDED(mutex_, glance_mutex_);
  static constexpr absl::Duration kGlanceAge = absl::Milliseconds(100);

  // What rows took lately, whatever their shape.
  StageTimes::Medians stage_times() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What is to be done without the lock, in this order.
  struct Start {
    BatchRunner* runner;
    std::unique_ptr<Batch> batch;
  };
  struct Failure {
    std::shared_ptr<PendingRequest> request;
    Refusal refusal;
  };
  // To be told to the request's flow.
  struct DoorMove {
    std::shared_ptr<PendingRequest> request;
    int change;
  };
  struct Actions {
    absl::InlinedVector<Start, 1> starts;
    std::vector<Failure> failures;
    std::vector<DoorMove> door_moves;
    StagingArea::Fills fills;
    int64_t freed_bytes = 0;  // Of Options::memory.
    int leased_cores = 0;     // That no batch needs after all.
    bool wake_other_models = false;
    bool rows_to_prepare = false;
    bool empty() const {
      return starts.empty() && failures.empty() && door_moves.empty() && fills.empty() &&
             freed_bytes == 0 && leased_cores == 0 && !wake_other_models && !rows_to_prepare;
    }
  };

  Dispatcher(Options options, std::shared_ptr<const ModelSignature> signature,
             std::vector<BatchBuffer*> buffers, Clock& clock, Timer& timer, CoreLeases& leases,
             ModelMetrics& metrics);

  // Does whatever can be done now, until nothing is left.
  void Pump() ABSL_LOCKS_EXCLUDED(mutex_);
  void Perform(Actions actions) ABSL_LOCKS_EXCLUDED(mutex_);
  // Writes rows into their batches and returns what can be done next.
  Actions PerformFills(absl::Span<const StagingArea::Fill> fills) ABSL_LOCKS_EXCLUDED(mutex_);

  Gauges MakeGauges(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Leaves a glance for those who look on, unless one of them is just reading the last.
  void LeaveGlance(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_)
      ABSL_LOCKS_EXCLUDED(glance_mutex_);

  // ---- Letting requests in ----

  void Admit(std::shared_ptr<PendingRequest> request, absl::Time now, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Where as many wait of a flow as may, drops the oldest; true where the request has taken its
  // place.
  bool EntersInsteadOfOldest(const std::shared_ptr<PendingRequest>& request, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the queue has room for a request once the oldest that waits of its flow has left.
  // REQUIRES: one waits.
  bool FitsInsteadOfOldest(const PendingRequest& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes room for a request at the cost of its own flow's oldest, or of the flows that wait for
  // most; false, and nobody has left, where there is none all the same.
  bool MakeRoomFor(const PendingRequest& request, absl::Time now, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the last of a flow that waits for more than its share out of the queue.
  void TurnOut(PendingRequest& request, absl::Time now, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops the oldest that waits of a flow for a newer one; false where none does.
  bool SupersedeOldest(const Flow& flow, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LetInParked(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False where the request's bytes aren't there; a flow that drops its oldest makes room for them.
  bool TakeBytes(PendingRequest& request, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the model may hold `bytes` more beside those `held`; where none are, any number.
  bool BytesFit(int64_t bytes, int64_t held) const {
    return held <= 0 || bytes <= options_.max_queue_bytes - held;
  }
  void ReleaseBytes(PendingRequest& request, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What a request is told that finds no room, and what it lacks.
  Refusal QueueFull(const std::string& why, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string WhatIsFull(const PendingRequest& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string RowsThatWait(int level) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // When a request should try again that was refused since others wait.
  absl::Duration RetryAfter(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What a request of a flow may expect that comes now; null stands for a flow of which nothing
  // waits. At most `most_ahead` rows of the queue go before it.
  struct Forecast {
    absl::Duration wait;     // Until a replica takes it; zero where nothing is known.
    int64_t batch_rows = 0;  // Of the batch in which it will be.
  };
  Forecast Foresee(const Flow* flow, int level, int64_t rows, int64_t most_ahead,
                   absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How long a request would wait that comes after all who wait now.
  absl::Duration WaitBehindAll(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether it will probably make its deadline.
  bool CanMakeIt(const PendingRequest& request, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- Preparing them ----

  // Prepares a row that NextPreparation() took.
  void Prepare(const std::shared_ptr<PendingRequest>& request, int64_t row)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- Giving requests up ----

  // Fails a request that waits nowhere, or takes it out of wherever it waits.
  void Refuse(std::shared_ptr<PendingRequest> request, Refusal refusal, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(PendingRequest& request, Refusal refusal, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops a request of which a limit has passed; false where it may wait on.
  bool DropIfExpired(PendingRequest& request, absl::Time now, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- The steps that find out what can be done now ----

  void Collect(absl::Time now, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives up what waits where there has been no replica for too long.
  void CollectHopeless(absl::Time now, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool LacksReplicas(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CollectExpired(absl::Time now, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CollectStaging(absl::Time now, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives one batch to a replica; false where none can go.
  bool CollectStart(absl::Time now, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- Staging ----

  // Moves one piece into a batch; false where nobody can be staged now.
  bool StageNext(absl::Time now, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  using PassedOver = absl::InlinedVector<const ShapeGroup*, 4>;
  // The shape whose turn it is of those for which there is a batch or a buffer.
  ShapeGroup* NextGroup(const PassedOver& passed_over) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whose turn it is, of those for whom there is room; null where there is nobody.
  PendingRequest* NextInTurn(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Who goes out of turn: one that would miss its deadline, one that has waited for too long.
  PendingRequest* NextUrgent(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  PendingRequest* NextOverdue(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether somebody overdue may go before a higher level, and who went so instead of others.
  bool GuardAllows() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountForGuard(bool by_guard, int64_t rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether there is room for a piece of a request.
  bool HasRoom(const PendingRequest& request, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether a request gets a batch of its own, so that it spoils nobody's.
  bool RunsAlone(const PendingRequest& request, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How many rows a new batch for a request takes at most.
  int64_t RowsOfBatchFor(const PendingRequest& request, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t most_rows() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return most_rows_; }

  // ---- Starting ----

  // The staged batch to start next, null where none is; sees to it that it is asked again in time.
  Batch* NextToStart(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool GoesBefore(const Batch& a, const Batch& b, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // When a batch has to go even where it could wait: a moment before somebody in it expires.
  absl::Time LatestStart(const Batch& batch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time HoldUntil(const Batch& batch, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sees to it that those who run make their deadlines; false where some were given up, so that
  // others can take their places.
  bool FitDeadlines(Batch& batch, ReplicaKind kind, absl::Time now, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AcquireLease(const BatchRunner& runner, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeaveLeaseLine(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Started(Batch& batch, BatchRunner* runner, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The flows of a batch that has run will get their answers in a moment.
  void ExpectReturns(const Batch& batch, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void WakeAt(absl::Time when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnTimer(absl::Time when) ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- Results ----

  // Copies the outputs out, frees the buffer, then answers.
  void Deliver(const Batch& batch, const std::vector<OutputView>& outputs, absl::Duration execute,
               int replica) ABSL_LOCKS_EXCLUDED(mutex_);
  // What a request is told that replicas die of.
  absl::Status GivenUp(const PendingRequest& request, const std::string& ending) const;
  // Marks a request as suspect whose payload is.
  void Suspect(PendingRequest& request, uint64_t fingerprint) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Fails the only member, or puts the halves of several back for another run.
  void Isolate(const Batch& batch, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes members whose batch has lost its buffer wait for two others, each of half of them: before
  // those who wait already, or after them.
  void RunAgain(absl::Span<const Batch::Member> members, bool first, absl::Time now,
                Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckOutputs(const Batch& batch, const std::vector<OutputView>& outputs) const;
  void Send(PendingRequest& request, PendingRequest::Answer&& answer, absl::Time now);
  void Fail(const Failure& failure) ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  const std::shared_ptr<const ModelSignature> signature_;
  // Whether a request's rows may run in different batches though they fit into one.
  const bool outputs_are_fixed_;
  Clock& clock_;
  Timer& timer_;
  CoreLeases& leases_;
  ModelMetrics& metrics_;

  mutable Mutex mutex_;
  int64_t most_rows_ ABSL_GUARDED_BY(mutex_);  // Of a batch.
  int64_t prepare_ahead_ ABSL_GUARDED_BY(mutex_);
  WaitingRoom room_ ABSL_GUARDED_BY(mutex_);
  WaitingFlows flows_ ABSL_GUARDED_BY(mutex_);
  StagingArea staging_ ABSL_GUARDED_BY(mutex_);
  Runners runners_ ABSL_GUARDED_BY(mutex_);
  CostTable costs_ ABSL_GUARDED_BY(mutex_);
  StageTimes stage_times_ ABSL_GUARDED_BY(mutex_);
  OverloadController overload_ ABSL_GUARDED_BY(mutex_);
  const RequestLimits limits_ ABSL_GUARDED_BY(mutex_);
  BatchCaps caps_ ABSL_GUARDED_BY(mutex_);
  SuspectPayloads suspects_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> has_suspects_{false};  // So that payloads are read only where it matters.
  FailingFlows failing_ ABSL_GUARDED_BY(mutex_);
  ReturnPredictor returns_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_finish_ ABSL_GUARDED_BY(mutex_);
  int64_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Rows by which those that the guard let go are ahead of the others.
  int64_t guarded_rows_ ABSL_GUARDED_BY(mutex_) = 0;
  // The one wake-up that is outstanding; at InfiniteFuture() there is none.
  Timer::Id wake_ ABSL_GUARDED_BY(mutex_) = {absl::InfiniteFuture(), 0};
  bool waits_for_lease_ ABSL_GUARDED_BY(mutex_) = false;
  // See LackReplicas(); InfiniteFuture() while there is one, or one is expected.
  absl::Time lacks_from_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Status lacks_ ABSL_GUARDED_BY(mutex_);
  absl::Status stopped_ ABSL_GUARDED_BY(mutex_);  // Not OK: why nothing is taken any more.
  std::atomic<int64_t> in_flight_{0};

  // For glance(): taken after `mutex_`, and there only where it is free.
  mutable Mutex glance_mutex_;
  Glance glance_ ABSL_GUARDED_BY(glance_mutex_);
  absl::Time next_glance_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::atomic<int64_t> last_event_ns_{std::numeric_limits<int64_t>::min()};
};

}  // namespace millrace
