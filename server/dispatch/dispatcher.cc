// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/dispatcher.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// Batches that are run again go first, then whoever has waited longest.
bool GoesBefore(const Batch& a, const Batch& b) {
  return a.retry != b.retry ? a.retry : a.oldest_arrival() < b.oldest_arrival();
}

absl::Status Cancelled() { return absl::CancelledError("The caller cancelled the request."); }

}  // namespace

std::shared_ptr<Dispatcher> Dispatcher::Create(Options options,
                                               std::shared_ptr<const ModelSignature> signature,
                                               std::vector<BatchBuffer*> buffers, Clock& clock,
                                               Timer& timer, CoreLeases& leases,
                                               ModelMetrics& metrics) {
  return std::shared_ptr<Dispatcher>(new Dispatcher(
      std::move(options), std::move(signature), std::move(buffers), clock, timer, leases, metrics));
}

Dispatcher::Dispatcher(Options options, std::shared_ptr<const ModelSignature> signature,
                       std::vector<BatchBuffer*> buffers, Clock& clock, Timer& timer,
                       CoreLeases& leases, ModelMetrics& metrics)
    : options_(std::move(options)),
      signature_(std::move(signature)),
      clock_(clock),
      timer_(timer),
      leases_(leases),
      metrics_(metrics),
      queue_(options_.max_queue_rows),
      free_buffers_(std::move(buffers)) {}

// ---- Requests ----

void Dispatcher::Submit(std::shared_ptr<PendingRequest> request) {
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  Actions actions;
  {
    MutexLock lock(mutex_);
    if (!stopped_.ok()) {
      actions.failures.push_back({std::move(request), stopped_});
    } else if (request->caller().cancelled()) {
      actions.failures.push_back({std::move(request), Cancelled()});
    } else if (queue_.parked() == 0 && queue_.HasRoom(request->rows())) {
      ExpireAt(request->deadline);
      queue_.Push(std::move(request));
    } else if (request->overflow == Overflow::kBlock) {
      ExpireAt(request->deadline);
      actions.door_moves.push_back({request, 1});
      queue_.Park(std::move(request));
    } else {
      actions.failures.push_back(
          {std::move(request), absl::ResourceExhaustedError(absl::StrCat(
                                   "Exceeds maximum queue size: ", queue_.rows(),
                                   " rows wait for model '", signature_->model_name(),
                                   "', at most ", options_.max_queue_rows, " may; retry later"))});
      metrics_.RecordRejection(Rejection::kQueueFull);
    }
    Collect(actions);
  }
  Perform(std::move(actions));
}

void Dispatcher::Cancel(const Caller& caller) {
  Actions actions;
  {
    MutexLock lock(mutex_);
    Drop([&caller](const PendingRequest& request) { return &request.caller() == &caller; },
         Cancelled(), actions);
    Collect(actions);
  }
  Perform(std::move(actions));
}

void Dispatcher::Stop(const absl::Status& status) {
  Actions actions;
  {
    MutexLock lock(mutex_);
    stopped_ = status;
    Drop([](const PendingRequest&) { return true; }, status, actions);
    Collect(actions);
  }
  Perform(std::move(actions));
}

Dispatcher::Gauges Dispatcher::gauges() const {
  MutexLock lock(mutex_);
  absl::Time oldest = queue_.oldest_arrival();
  for (const auto& batch : staged_) oldest = std::min(oldest, batch->oldest_arrival());
  Gauges gauges = {.queued_rows = queue_.rows(),
                   .oldest_age = absl::ZeroDuration(),
                   .in_flight = in_flight_.load(std::memory_order_relaxed),
                   .idle_runners = static_cast<int>(idle_.size()),
                   .free_buffers = free_buffers_.size()};
  if (oldest != absl::InfiniteFuture()) gauges.oldest_age = clock_.Now() - oldest;
  return gauges;
}

void Dispatcher::Drop(absl::FunctionRef<bool(const PendingRequest&)> matches,
                      const absl::Status& status, Actions& actions) {
  RequestQueue::Removed removed = queue_.Remove(matches);
  for (auto& request : removed.parked) {
    actions.door_moves.push_back({request, -1});
    actions.failures.push_back({request, status});
  }
  for (auto& request : removed.queued) actions.failures.push_back({request, status});
  for (const auto& batch : staged_) {
    for (size_t i = 0; i < batch->members().size(); ++i) {
      const Batch::Member& member = batch->members()[i];
      if (member.vacated || !matches(*member.request)) continue;
      actions.failures.push_back({member.request, status});
      batch->Vacate(i);
    }
  }
  for (Retry& retry : retries_) {
    std::erase_if(retry, [&](const Batch::Member& member) {
      if (!matches(*member.request)) return false;
      actions.failures.push_back({member.request, status});
      return true;
    });
  }
}

// ---- Replicas ----

void Dispatcher::AddRunner(BatchRunner* runner) {
  {
    MutexLock lock(mutex_);
    idle_.push_back(runner);
  }
  Pump();
}

bool Dispatcher::RemoveIdleRunner(BatchRunner* runner) {
  MutexLock lock(mutex_);
  return std::erase(idle_, runner) > 0;
}

void Dispatcher::Finish(BatchRunner* runner, std::unique_ptr<Batch> batch,
                        const absl::StatusOr<std::vector<OutputView>>& outputs,
                        absl::Duration execute, int replica) {
  if (runner->lease_cores() > 0) leases_.Release(runner->lease_cores());
  Actions starts;
  {
    MutexLock lock(mutex_);
    idle_.push_back(runner);
    CollectStart(starts);
  }
  Perform(std::move(starts));  // The replica computes again while its outputs are dealt with.
  const absl::Status status = outputs.ok() ? CheckOutputs(*batch, *outputs) : outputs.status();
  if (status.ok()) {
    Deliver(*batch, *outputs, execute, replica);
  } else {
    Isolate(*batch, status);
  }
  Pump();
}

void Dispatcher::Requeue(BatchRunner* runner, std::unique_ptr<Batch> batch) {
  if (runner->lease_cores() > 0) leases_.Release(runner->lease_cores());
  Actions actions;
  {
    MutexLock lock(mutex_);
    Retry again;
    for (const Batch::Member& member : batch->members()) {
      if (++member.request->deaths < options_.max_deaths && stopped_.ok()) {
        ExpireAt(member.request->deadline);
        again.push_back(member);
        continue;
      }
      actions.failures.push_back(
          {member.request, stopped_.ok() ? absl::InternalError(absl::StrCat(
                                               "model '", signature_->model_name(),
                                               "': the replica that ran this "
                                               "request died, and so did those that ran it again: ",
                                               member.request->deaths, " in all"))
                                         : stopped_});
    }
    if (!again.empty()) retries_.push_front(std::move(again));
    free_buffers_.push_back(batch->buffer());
    Collect(actions);
  }
  Perform(std::move(actions));
}

absl::Status Dispatcher::CheckOutputs(const Batch& batch,
                                      const std::vector<OutputView>& outputs) const {
  const std::vector<TensorSpec>& expected = signature_->outputs();
  if (outputs.size() != expected.size()) {
    return absl::InternalError(absl::StrCat("model '", signature_->model_name(), "' returned ",
                                            outputs.size(), " outputs, expected ",
                                            expected.size()));
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const bool right_rows = !signature_->batched() ||
                            (!outputs[i].shape.empty() && outputs[i].shape[0] == batch.rows());
    if (outputs[i].data_type != expected[i].data_type || !right_rows) {
      return absl::InternalError(absl::StrCat(
          "output '", expected[i].name, "' of model '", signature_->model_name(), "' is ",
          WireName(outputs[i].data_type), " of shape ", ToString(outputs[i].shape), ", expected ",
          WireName(expected[i].data_type), " with ", batch.rows(), " rows"));
    }
  }
  return absl::OkStatus();
}

void Dispatcher::Deliver(const Batch& batch, const std::vector<OutputView>& outputs,
                         absl::Duration execute, int replica) {
  const absl::Time copy_begins = clock_.Now();
  std::vector<std::pair<PendingRequest*, PendingRequest::Answer>> answers;
  answers.reserve(batch.members().size());
  for (const Batch::Member& member : batch.members()) {
    const absl::Duration waited = batch.started - member.request->arrival - batch.fill_time();
    const Timings timings = {.queue = std::max(absl::ZeroDuration(), waited),
                             .fill = batch.fill_time(),
                             .execute = execute,
                             .batch_rows = batch.rows(),
                             .replica = replica};
    if (auto answer = member.request->AddRows(*signature_, outputs, member.batch_row,
                                              member.first_row, member.rows, timings)) {
      answers.emplace_back(member.request.get(), *std::move(answer));
    }
  }
  const absl::Time now = clock_.Now();
  metrics_.RecordBatch({.rows = batch.rows(),
                        .requests = static_cast<int64_t>(batch.members().size()),
                        .fill = batch.fill_time(),
                        .execute = execute,
                        .output = now - copy_begins});
  {
    MutexLock lock(mutex_);
    free_buffers_.push_back(batch.buffer());
  }
  for (auto& [request, answer] : answers) Send(*request, std::move(answer), now);
}

void Dispatcher::Isolate(const Batch& batch, const absl::Status& status) {
  const std::vector<Batch::Member>& members = batch.members();
  absl::Status answer = status;
  {
    MutexLock lock(mutex_);
    free_buffers_.push_back(batch.buffer());
    if (members.size() > 1) answer = stopped_;  // Nobody will find out any more whose error it is.
    if (members.size() > 1 && stopped_.ok()) {
      for (const Batch::Member& member : members) ExpireAt(member.request->deadline);
      const auto middle = members.begin() + static_cast<std::ptrdiff_t>(members.size() / 2);
      retries_.emplace_back(members.begin(), middle);
      retries_.emplace_back(middle, members.end());
      return;
    }
  }
  for (const Batch::Member& member : members) Fail(*member.request, answer);
}

void Dispatcher::Send(PendingRequest& request, PendingRequest::Answer&& answer, absl::Time now) {
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  const Timings& timings = answer.response.timings;
  metrics_.RecordRequest({.code = static_cast<int>(answer.response.status.code()),
                          .rows = request.rows(),
                          .total = now - request.arrival,
                          .queue = timings.queue,
                          .compute_input = timings.fill,
                          .compute_infer = timings.execute,
                          .compute_output = absl::ZeroDuration()});
  answer.responder.Respond(std::move(answer.response));
}

void Dispatcher::Fail(PendingRequest& request, const absl::Status& status) {
  if (auto answer = request.Fail(*signature_, status)) {
    Send(request, *std::move(answer), clock_.Now());
  }
}

// ---- What can be done now ----

void Dispatcher::Pump() {
  Actions actions;
  {
    MutexLock lock(mutex_);
    Collect(actions);
  }
  Perform(std::move(actions));
}

void Dispatcher::Perform(Actions actions) {
  while (!actions.empty()) {
    for (Start& start : actions.starts) {
      start.batch->Seal();
      start.batch->started = clock_.Now();
      start.runner->Run(std::move(start.batch));
    }
    for (const Failure& failure : actions.failures) Fail(*failure.request, failure.status);
    for (const DoorMove& move : actions.door_moves) move.request->flow().Parked(move.change);
    if (actions.wake_other_models) leases_.WakeFirst();
    actions = PerformFills(actions.fills);
  }
}

Dispatcher::Actions Dispatcher::PerformFills(absl::Span<const Fill> fills) {
  Actions next;
  if (fills.empty()) return next;
  struct Outcome {
    absl::Status status;
    absl::Duration took;
  };
  absl::InlinedVector<Outcome, 4> outcomes;
  for (const Fill& fill : fills) {
    const absl::Time begin = clock_.Now();
    absl::Status status =
        fill.batch->Fill(*fill.request, fill.first_row, fill.rows, fill.batch_row);
    outcomes.push_back({std::move(status), clock_.Now() - begin});
  }
  MutexLock lock(mutex_);
  for (size_t i = 0; i < fills.size(); ++i) {
    fills[i].batch->Filled(fills[i].member, outcomes[i].took);
    if (outcomes[i].status.ok()) continue;
    fills[i].batch->Vacate(fills[i].member);
    next.failures.push_back({fills[i].request, outcomes[i].status});
  }
  Collect(next);
  return next;
}

void Dispatcher::Collect(Actions& actions) {
  CollectExpired(actions);
  FreeEmptyBatches();
  CollectRetries(actions);
  do {  // The start of a staged batch leaves its place to the next.
    CollectStaging(actions);
  } while (CollectStart(actions));
}

void Dispatcher::CollectExpired(Actions& actions) {
  if (earliest_deadline_ == absl::InfiniteFuture()) return;
  const absl::Time now = clock_.Now();
  if (earliest_deadline_ <= now) {
    absl::Time earliest_left = absl::InfiniteFuture();
    const size_t before = actions.failures.size();
    const auto expired = [&](const PendingRequest& request) {
      if (request.deadline <= now) return true;
      earliest_left = std::min(earliest_left, request.deadline);
      return false;
    };
    Drop(expired, absl::DeadlineExceededError("Request timeout expired"), actions);
    earliest_deadline_ = earliest_left;
    for (size_t i = before; i < actions.failures.size(); ++i) {
      metrics_.RecordRejection(Rejection::kDeadline);
    }
  }
  WakeAt(earliest_deadline_);
}

void Dispatcher::CollectRetries(Actions& actions) {
  while (!retries_.empty() && !free_buffers_.empty()) {
    Retry retry = std::move(retries_.front());
    retries_.pop_front();
    std::erase_if(retry, [&](const Batch::Member& member) {
      if (!member.request->caller().cancelled()) return member.request->answered();
      actions.failures.push_back({member.request, Cancelled()});
      return true;
    });
    if (retry.empty()) continue;
    int64_t rows = 0;
    for (const Batch::Member& member : retry) rows += member.rows;
    const auto& shape = retry.front().request->row_shape();
    const auto capacity = free_buffers_.back()->Open(*shape, rows);
    MILLRACE_CHECK(capacity.ok() && *capacity == rows, "What fitted a buffer once fits again.");
    staged_.push_back(std::make_unique<Batch>(free_buffers_.back(), shape, rows));
    free_buffers_.pop_back();
    for (const Batch::Member& member : retry) Join(staged_.back().get(), member, actions);
    staged_.back()->retry = true;
    staged_.back()->Close();
  }
}

void Dispatcher::CollectStaging(Actions& actions) {
  for (;;) {
    for (auto& request : queue_.AdmitParked()) actions.door_moves.push_back({request, -1});
    if (queue_.empty()) return;
    const std::shared_ptr<PendingRequest> request = queue_.front();
    if (request->rows_claimed > 0 && request->answered()) {  // An earlier part has failed.
      queue_.PopFront();
      continue;
    }
    const absl::StatusOr<Batch*> batch = StagedBatchForFront();
    if (!batch.ok()) {
      queue_.PopFront();
      actions.failures.push_back({request, batch.status()});
      continue;
    }
    if (*batch == nullptr) return;
    const int64_t rows = (*batch)->PieceOf(request->rows() - request->rows_claimed);
    Join(*batch, {.request = request, .first_row = request->rows_claimed, .rows = rows}, actions);
    queue_.ClaimedFromFront(rows);
  }
}

absl::StatusOr<Batch*> Dispatcher::StagedBatchForFront() {
  const PendingRequest& request = *queue_.front();
  const int64_t left = request.rows() - request.rows_claimed;
  bool one_waits = false;
  for (const auto& batch : staged_) {
    if (batch->retry || !(batch->shape() == *request.row_shape())) continue;
    if (batch->HasRoom(batch->PieceOf(left))) return batch.get();
    one_waits = true;
  }
  if (one_waits || free_buffers_.empty()) return nullptr;
  BatchBuffer* const buffer = free_buffers_.back();
  const int64_t most = signature_->batched() ? signature_->max_batch_size() : 1;
  MILLRACE_ASSIGN_OR_RETURN(const int64_t capacity, buffer->Open(*request.row_shape(), most));
  free_buffers_.pop_back();
  staged_.push_back(std::make_unique<Batch>(buffer, request.row_shape(), capacity));
  return staged_.back().get();
}

void Dispatcher::Join(Batch* batch, const Batch::Member& rows, Actions& actions) {
  const size_t member = batch->Claim(rows.request, rows.first_row, rows.rows);
  actions.fills.push_back(
      {batch, member, rows.request, rows.first_row, rows.rows, batch->members()[member].batch_row});
}

void Dispatcher::FreeEmptyBatches() {
  for (auto batch = staged_.begin(); batch != staged_.end();) {
    if ((*batch)->rows() > 0 || (*batch)->filling() > 0) {
      ++batch;
    } else {
      free_buffers_.push_back((*batch)->buffer());
      batch = staged_.erase(batch);
    }
  }
}

bool Dispatcher::CollectStart(Actions& actions) {
  const auto next = idle_.empty() ? staged_.end() : NextToStart();
  if (next != staged_.end()) {
    const auto runner = NextIdle();
    if (!AcquireLease(**runner, actions)) return false;
    actions.starts.push_back({*runner, std::move(*next)});
    idle_.erase(runner);
    staged_.erase(next);
    return true;
  }
  // A batch into which somebody is just writing keeps the model's turn: it goes in a moment.
  const bool goes_soon = !idle_.empty() && std::any_of(staged_.begin(), staged_.end(),
                                                       [](const std::unique_ptr<Batch>& batch) {
                                                         return batch->filling() > 0;
                                                       });
  if (!goes_soon) LeaveLeaseLine(actions);
  return false;
}

std::vector<BatchRunner*>::iterator Dispatcher::NextIdle() {
  // The one that was busy last, since its caches are warm.
  const auto free = std::find_if(idle_.rbegin(), idle_.rend(), [](const BatchRunner* runner) {
    return runner->lease_cores() == 0;
  });
  return std::prev(free != idle_.rend() ? free.base() : idle_.end());
}

std::vector<std::unique_ptr<Batch>>::iterator Dispatcher::NextToStart() {
  auto next = staged_.end();
  if (staged_.empty()) return next;
  const absl::Time now = clock_.Now();
  for (auto candidate = staged_.begin(); candidate != staged_.end(); ++candidate) {
    const Batch& batch = **candidate;
    if (batch.filling() > 0) continue;  // Whoever fills it last comes by again.
    const absl::Time go_at =
        options_.policy.GoAt({.rows = batch.rows(),
                              // Nobody overtakes the first in the queue, which found no place.
                              .closed = batch.closed() || !queue_.empty(),
                              .oldest_arrival = batch.oldest_arrival()});
    if (go_at > now) {
      WakeAt(go_at);
    } else if (next == staged_.end() || GoesBefore(batch, **next)) {
      next = candidate;
    }
  }
  return next;
}

bool Dispatcher::AcquireLease(const BatchRunner& runner, Actions& actions) {
  if (runner.lease_cores() == 0) return true;
  if (!leases_.TryAcquire(shared_from_this(), runner.lease_cores())) {
    waits_for_lease_ = true;
    return false;
  }
  if (waits_for_lease_) actions.wake_other_models = true;
  waits_for_lease_ = false;
  return true;
}

void Dispatcher::LeaveLeaseLine(Actions& actions) {
  if (!waits_for_lease_) return;
  waits_for_lease_ = false;
  leases_.Withdraw(*this);
  actions.wake_other_models = true;
}

void Dispatcher::WakeAt(absl::Time when) {
  if (when >= wake_.first) return;
  if (wake_.first != absl::InfiniteFuture()) timer_.Forget(wake_);
  wake_ = timer_.Schedule(when, [weak = weak_from_this(), when] {
    if (const auto self = weak.lock()) self->OnTimer(when);
  });
}

void Dispatcher::OnTimer(absl::Time when) {
  {
    MutexLock lock(mutex_);
    if (wake_.first == when) wake_.first = absl::InfiniteFuture();
  }
  Pump();
}

}  // namespace millrace
