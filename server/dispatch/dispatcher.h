// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/dispatch/batch.h"
#include "server/dispatch/batch_policy.h"
#include "server/dispatch/core_leases.h"
#include "server/dispatch/pending_request.h"
#include "server/dispatch/queue_policy.h"
#include "server/dispatch/request_queue.h"
#include "server/metrics/model_metrics.h"

namespace millrace {

// Something that runs batches of one model, one at a time: a replica.
class BatchRunner {
 public:
  virtual ~BatchRunner() = default;

  // Starts a sealed batch; its end is told by Dispatcher::Finish() or Requeue(). Never blocks;
  // called on whichever thread made the batch ready, without the dispatcher's lock.
  virtual void Run(std::unique_ptr<Batch> batch) = 0;

  // The budgeted cores that a running batch occupies; 0 on a GPU.
  virtual int lease_cores() const = 0;
};

// Queues the requests of one model, gathers them in batches and gives the batches to whichever
// replica is free first. Thread-safe; owns no thread: the work is done on the threads that bring
// requests and results, and by the timer.
//
// Invariants:
//  1. Every request that Submit() took is answered exactly once.
//  2. Requests get their places in batches in the order in which they came; those that were in a
//     batch whose replica died go first.
//  3. At most one staged batch per row shape waits; its rows are revocable until a replica takes
//     it. A free replica never waits while a batch may go.
//  4. A buffer is free as soon as its outputs are copied out, before any answer is sent.
//  5. Nothing outside is called under the lock.
class Dispatcher final : public LeaseClaimant, public std::enable_shared_from_this<Dispatcher> {
 public:
  struct Options {
    int64_t max_queue_rows = 128;  // Of each priority level that has no limit of its own.
    BatchPolicy policy = {};
    // The priority levels, the highest first, and the number of the one that a request has which
    // asks for none: level 1 is the highest.
    std::vector<QueuePolicy> levels = {QueuePolicy{}};
    int default_level = 1;
    int max_deaths = 3;  // Replicas that may die under a request before it is given up.
  };

  // `buffers` are all free; `metrics`, `clock`, `timer` and `leases` outlive the dispatcher.
  static std::shared_ptr<Dispatcher> Create(Options options,
                                            std::shared_ptr<const ModelSignature> signature,
                                            std::vector<BatchBuffer*> buffers, Clock& clock,
                                            Timer& timer, CoreLeases& leases,
                                            ModelMetrics& metrics);

  // Takes a request. Never blocks; may start a batch and may answer requests. Where the request
  // waits at the door, its flow is told before this returns, and again when it has left the door.
  void Submit(std::shared_ptr<PendingRequest> request) ABSL_LOCKS_EXCLUDED(mutex_);

  // Drops what waits or is staged of a cancelled caller, answering it CANCELLED. What runs already
  // goes on. REQUIRES: caller.cancelled().
  void Cancel(const Caller& caller) ABSL_LOCKS_EXCLUDED(mutex_);

  // A replica that is ready; it may be given a batch before this returns.
  void AddRunner(BatchRunner* runner) ABSL_LOCKS_EXCLUDED(mutex_);

  // A replica that ends; it gets no batch any more after this returns. False when it was not idle:
  // then it has a batch, or is being given one, and owes Finish() or Requeue().
  bool RemoveIdleRunner(BatchRunner* runner) ABSL_LOCKS_EXCLUDED(mutex_);

  // A batch has run and `runner` is free again. On success the outputs are copied out to the
  // members' answers; an error is the only member's answer, and a batch of several is run again
  // in halves, so that the one who caused it doesn't spoil its neighbours.
  void Finish(BatchRunner* runner, std::unique_ptr<Batch> batch,
              const absl::StatusOr<std::vector<OutputView>>& outputs, absl::Duration execute,
              int replica) ABSL_LOCKS_EXCLUDED(mutex_);

  // A replica died while it ran `batch`, and its process has ended. The batch runs again, filled
  // afresh; its requests are given up after Options::max_deaths.
  void Requeue(BatchRunner* runner, std::unique_ptr<Batch> batch) ABSL_LOCKS_EXCLUDED(mutex_);

  // Answers whatever waits, and later whatever comes, with `status`.
  void Stop(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  // LeaseClaimant.
  void TryAgain() override { Pump(); }

  struct Gauges {
    int64_t queued_rows = 0;
    absl::Duration oldest_age;  // Of a request that no replica has taken yet.
    int64_t in_flight = 0;      // Requests taken and not answered, parked ones included.
    int idle_runners = 0;
    size_t free_buffers = 0;
  };
  Gauges gauges() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // A batch that has lost its buffer and is to be gathered again.
  using Retry = std::vector<Batch::Member>;

  // What is to be done without the lock, in this order.
  struct Fill {
    Batch* batch;
    size_t member;
    std::shared_ptr<PendingRequest> request;
    int64_t first_row, rows, batch_row;
  };
  struct Start {
    BatchRunner* runner;
    std::unique_ptr<Batch> batch;
  };
  struct Failure {
    std::shared_ptr<PendingRequest> request;
    absl::Status status;
  };
  // To be told to the request's flow.
  struct DoorMove {
    std::shared_ptr<PendingRequest> request;
    int change;
  };
  struct Actions {
    std::vector<Start> starts;
    std::vector<Failure> failures;
    std::vector<DoorMove> door_moves;
    std::vector<Fill> fills;
    bool wake_other_models = false;
    bool empty() const {
      return starts.empty() && failures.empty() && door_moves.empty() && fills.empty() &&
             !wake_other_models;
    }
  };

  Dispatcher(Options options, std::shared_ptr<const ModelSignature> signature,
             std::vector<BatchBuffer*> buffers, Clock& clock, Timer& timer, CoreLeases& leases,
             ModelMetrics& metrics);

  // Does whatever can be done now, until nothing is left.
  void Pump() ABSL_LOCKS_EXCLUDED(mutex_);
  void Perform(Actions actions) ABSL_LOCKS_EXCLUDED(mutex_);
  // Writes rows into their batches and returns what can be done next.
  Actions PerformFills(absl::Span<const Fill> fills) ABSL_LOCKS_EXCLUDED(mutex_);

  // The steps that find out what can be done now.
  void Collect(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CollectExpired(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CollectRetries(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CollectStaging(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives one batch to a replica; false where none can go.
  bool CollectStart(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives the buffers of batches back that everybody has left.
  void FreeEmptyBatches() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The staged batch in which the first request of the queue gets its next rows, opened where need
  // be; null where it has to wait.
  absl::StatusOr<Batch*> StagedBatchForFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Join(Batch* batch, const Batch::Member& rows, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The staged batch to start next, or staged_.end(); sees to it that it is asked again in time.
  std::vector<std::unique_ptr<Batch>>::iterator NextToStart() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The idle replica to run the next batch: one that needs no lease before one that does.
  std::vector<BatchRunner*>::iterator NextIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AcquireLease(const BatchRunner& runner, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeaveLeaseLine(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the requests that `matches` picks out of wherever they wait, to be failed.
  void Drop(absl::FunctionRef<bool(const PendingRequest&)> matches, const absl::Status& status,
            Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeAt(absl::Time when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnTimer(absl::Time when) ABSL_LOCKS_EXCLUDED(mutex_);
  // Notes the deadline of a request that waits (again).
  void ExpireAt(absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    earliest_deadline_ = std::min(earliest_deadline_, deadline);
  }

  // Copies the outputs out, frees the buffer, then answers.
  void Deliver(const Batch& batch, const std::vector<OutputView>& outputs, absl::Duration execute,
               int replica) ABSL_LOCKS_EXCLUDED(mutex_);
  // Fails the only member, or puts the halves of several back for another run.
  void Isolate(const Batch& batch, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckOutputs(const Batch& batch, const std::vector<OutputView>& outputs) const;
  void Send(PendingRequest& request, PendingRequest::Answer&& answer, absl::Time now);
  void Fail(PendingRequest& request, const absl::Status& status);

  const Options options_;
  const std::shared_ptr<const ModelSignature> signature_;
  Clock& clock_;
  Timer& timer_;
  CoreLeases& leases_;
  ModelMetrics& metrics_;

  mutable Mutex mutex_;
  RequestQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::deque<Retry> retries_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Batch>> staged_ ABSL_GUARDED_BY(mutex_);
  std::vector<BatchBuffer*> free_buffers_ ABSL_GUARDED_BY(mutex_);
  std::vector<BatchRunner*> idle_ ABSL_GUARDED_BY(mutex_);
  // No request that waits or is staged has an earlier deadline.
  absl::Time earliest_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  // The one wake-up that is outstanding; at InfiniteFuture() there is none.
  Timer::Id wake_ ABSL_GUARDED_BY(mutex_) = {absl::InfiniteFuture(), 0};
  bool waits_for_lease_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status stopped_ ABSL_GUARDED_BY(mutex_);  // Not OK: why nothing is taken any more.
  std::atomic<int64_t> in_flight_{0};
};

}  // namespace millrace
