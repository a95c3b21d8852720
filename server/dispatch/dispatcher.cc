// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/dispatcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// When a caller whose request found no room should try again: when those who wait now will have
// been served, within these bounds.
constexpr absl::Duration kSoonestRetry = absl::Milliseconds(10);
constexpr absl::Duration kLatestRetry = absl::Seconds(10);

// So long before a member expires a batch goes that could wait for others.
constexpr absl::Duration kMargin = absl::Milliseconds(1);

Refusal Cancelled() { return {absl::CancelledError("The caller cancelled the request.")}; }

Refusal Superseded(const char* by) {
  return {absl::AbortedError(absl::StrCat("The request was dropped: superseded by ", by, ".")),
          Rejection::kSuperseded};
}

bool OutputsAreFixed(const ModelSignature& signature) {
  return std::all_of(
      signature.outputs().begin(), signature.outputs().end(),
      [](const TensorSpec& output) { return ElementCount(output.dims).has_value(); });
}

std::vector<int64_t> MostRows(const Dispatcher::Options& options) {
  std::vector<int64_t> most;
  for (const QueuePolicy& policy : options.levels) {
    most.push_back(options.queue_rows(policy));
  }
  return most;
}

bool DropsOldest(const PendingRequest& request) {
  return request.overflow == Overflow::kDropOldest || request.overflow == Overflow::kLatest;
}

// Takes half of a member's rows off, as a member of their own.
Batch::Member SplitOff(Batch::Member& member) {
  Batch::Member rest = member;
  member.rows /= 2;
  rest.first_row += member.rows;
  rest.rows -= member.rows;
  return rest;
}

// How many may wait of a flow that drops its oldest.
int64_t MostWaiting(const PendingRequest& request) {
  return request.overflow == Overflow::kLatest ? 1 : request.flow().most_waiting();
}

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
      outputs_are_fixed_(OutputsAreFixed(*signature_)),
      clock_(clock),
      timer_(timer),
      leases_(leases),
      metrics_(metrics),
      most_rows_(signature_->batched() ? signature_->max_batch_size() : 1),
      prepare_ahead_(options_.prepare_ahead),
      room_(MostRows(options_)),
      staging_(std::move(buffers), room_, flows_),
      overload_(options_.overload),
      limits_(signature_->model_name(), most_rows_, options_.levels, costs_, overload_),
      last_finish_(clock.Now()) {}

// ---- Requests ----

void Dispatcher::Submit(std::shared_ptr<PendingRequest> request) {
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  const absl::Time now = request->arrival;  // A moment ago.
  metrics_.RecordArrival(now, request->rows());
  std::optional<uint64_t> fingerprint;
  if (has_suspects_.load(std::memory_order_relaxed)) fingerprint = request->filler().Fingerprint();
  Actions actions;
  {
    MutexLock lock(mutex_);
    if (fingerprint) Suspect(*request, *fingerprint);
    if (!stopped_.ok()) {
      Refuse(std::move(request), {stopped_}, actions);
    } else if (LacksReplicas(now)) {
      Refuse(std::move(request), {lacks_, Rejection::kNotReady}, actions);
    } else if (request->caller().cancelled()) {
      metrics_.RecordCancelled(RequestStage::kAdmission);
      Refuse(std::move(request), Cancelled(), actions);
    } else {
      Admit(std::move(request), now, actions);
    }
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

void Dispatcher::Suspect(PendingRequest& request, uint64_t fingerprint) {
  if (!suspects_.Contains(fingerprint)) return;
  request.suspect = true;
  request.deaths = options_.max_deaths - 1;
}

void Dispatcher::Cancel(const Caller& caller) {
  const absl::Time now = clock_.Now();
  Actions actions;
  {
    MutexLock lock(mutex_);
    const std::vector<PendingRequest*> waiting = flows_.Of(caller);
    if (waiting.empty()) return;
    for (PendingRequest* const request : waiting) Drop(*request, Cancelled(), actions);
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

void Dispatcher::SizeQueue(int64_t max_queue_rows, int64_t prepare_ahead) {
  Options options = options_;
  options.max_queue_rows = max_queue_rows;
  {
    MutexLock lock(mutex_);
    room_.SetMostRows(MostRows(options));
    prepare_ahead_ = prepare_ahead;
  }
  Pump();
}

void Dispatcher::LackReplicas(const absl::Status& why, absl::Time from) {
  MutexLock lock(mutex_);
  lacks_ = why;
  lacks_from_ = from;
  WakeAt(from);
}

void Dispatcher::Stop(const absl::Status& status) {
  const absl::Time now = clock_.Now();
  Actions actions;
  {
    MutexLock lock(mutex_);
    stopped_ = status;
    for (const auto& request : flows_.All()) Drop(*request, {status}, actions);
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

Dispatcher::Gauges Dispatcher::gauges() const {
  const absl::Time now = clock_.Now();
  MutexLock lock(mutex_);
  return MakeGauges(now);
}

Dispatcher::Gauges Dispatcher::MakeGauges(absl::Time now) const {
  Gauges gauges = {.queued_rows = room_.queue().rows(),
                   .queue_limit = 0,
                   .oldest_age = absl::ZeroDuration(),
                   .in_flight = in_flight_.load(std::memory_order_relaxed),
                   .idle_runners = runners_.idle(),
                   .free_buffers = staging_.free_buffers(),
                   .parked = room_.parked(),
                   .waiting_requests = flows_.count(),
                   .waiting_rows = room_.queue().rows() + staging_.rows() + room_.parked(),
                   .batch_limit = most_rows(),
                   .held_bytes = held_bytes_,
                   .predicted_wait = absl::ZeroDuration(),
                   .capacity = 0,
                   .utilisation = runners_.utilisation(now),
                   .overloaded = overload_.overloaded(),
                   .last_finish = last_finish_,
                   .replica_due = runners_.idle() > 0 && !waits_for_lease_};
  for (size_t level = 1; level <= options_.levels.size(); ++level) {
    gauges.queue_limit += room_.most_rows(static_cast<int>(level));
  }
  const absl::Time oldest = std::min(room_.queue().oldest_arrival(), staging_.oldest_arrival());
  if (oldest != absl::InfiniteFuture()) gauges.oldest_age = now - oldest;
  if (const CostTable::Entry* const latest = costs_.latest()) {
    gauges.predicted_wait = WaitBehindAll(now);
    for (const ReplicaKind kind : {ReplicaKind::kCpu, ReplicaKind::kGpu}) {
      gauges.capacity += runners_.at_a_time(kind, leases_.slots()) *
                         latest->models[static_cast<size_t>(kind)].Capacity(most_rows());
    }
  }
  return gauges;
}

std::vector<CostTable::Entry> Dispatcher::costs() const {
  MutexLock lock(mutex_);
  return costs_.Latest();
}

void Dispatcher::LeaveGlance(absl::Time now) {
  if (!glance_mutex_.TryLock()) return;
  glance_ = {.gauges = MakeGauges(now), .costs = costs_.Latest()};
  glance_mutex_.Unlock();
  next_glance_ = now + kGlanceAge;
}

Dispatcher::Glance Dispatcher::glance() const {
  const absl::Time now = clock_.Now();
  if (absl::ToUnixNanos(now - kGlanceAge) < last_event_ns_.load(std::memory_order_acquire)) {
    MutexLock lock(glance_mutex_);
    Glance glance = glance_;
    glance.gauges.in_flight = in_flight_.load(std::memory_order_relaxed);
    return glance;
  }
  MutexLock lock(mutex_);
  return {.gauges = MakeGauges(now), .costs = costs_.Latest()};
}

StageTimes::Medians Dispatcher::stage_times() const {
  MutexLock lock(mutex_);
  return stage_times_.medians();
}

// ---- Letting requests in ----

void Dispatcher::Admit(std::shared_ptr<PendingRequest> pointer, absl::Time now, Actions& actions) {
  PendingRequest& request = *pointer;
  const Flow& flow = request.flow();
  request.tier = FairQueue::TierOf(request.level, false);
  request.row_cost = costs_.RowCost(*request.row_shape(), most_rows());
  if (options_.policy.hold == Hold::kReturners) returns_.Arrived(flow.id(), now);
  limits_.Begin(request, now);
  if (request.expiry <= now || !CanMakeIt(request, now)) {
    Refusal refusal = limits_.WhyExpired(request, now).value_or(limits_.TooLate(request, now));
    if (refusal.reason == Rejection::kDeadline) {
      metrics_.RecordDeadlineExceeded(RequestStage::kAdmission);
    }
    return Refuse(std::move(pointer), std::move(refusal), actions);
  }
  if (DropsOldest(request) && EntersInsteadOfOldest(pointer, actions)) return;
  // It doesn't overtake those of its flow who were turned out to the door.
  const bool overtakes = room_.parked() > 0 && flows_.LatestIsAtDoor(flow, request.level);
  bool enters = !overtakes && TakeBytes(request, actions);
  if (enters && !room_.MayEnter(request) && !MakeRoomFor(request, now, actions)) {
    ReleaseBytes(request, actions);
    enters = false;
  }
  if (!enters && request.overflow != Overflow::kBlock) {
    Refusal refusal = QueueFull(WhatIsFull(request), now);
    return Refuse(std::move(pointer), std::move(refusal), actions);
  }
  flows_.AddPlace(pointer);
  if (enters) {
    room_.Enter(request);
  } else {
    actions.door_moves.push_back({std::move(pointer), 1});
    room_.Park(request);
  }
}

bool Dispatcher::EntersInsteadOfOldest(const std::shared_ptr<PendingRequest>& request,
                                       Actions& actions) {
  const Flow& flow = request->flow();
  const int64_t most_waiting = MostWaiting(*request);
  if (flows_.CountOf(flow) < most_waiting) return false;
  if (FitsInsteadOfOldest(*request) && TakeBytes(*request, actions)) {
    flows_.AddPlace(request);  // First, so that the flow keeps its turn.
    room_.Enter(*request);
    while (flows_.CountOf(flow) > most_waiting) SupersedeOldest(flow, actions);
    return true;
  }
  while (flows_.CountOf(flow) >= most_waiting) SupersedeOldest(flow, actions);
  return false;
}

bool Dispatcher::FitsInsteadOfOldest(const PendingRequest& request) const {
  if (room_.HasRoom(request)) return true;
  const PendingRequest& oldest = *flows_.FirstOf(request.flow());
  if (WaitingRoom::IsParked(oldest) || oldest.started) return false;
  if (oldest.level != request.level) return false;
  // Where it is staged, it leaves a hole in a batch that somebody of the queue can fill.
  const bool is_staged = !WaitingRoom::Holds(oldest);
  if (is_staged && *oldest.row_shape() != *request.row_shape()) return false;
  const int64_t rows = is_staged ? oldest.rows() : oldest.rows() - oldest.rows_claimed;
  return rows >= request.rows();
}

bool Dispatcher::MakeRoomFor(const PendingRequest& request, absl::Time now, Actions& actions) {
  FairQueue& queue = room_.queue();
  const Flow& flow = request.flow();
  const int level = request.level;
  const bool drops = DropsOldest(request) && flows_.CountOf(flow) > 0;
  const int64_t missing =
      std::min(queue.rows(level), queue.rows(level) + request.rows() - room_.most_rows(level));
  if (missing <= 0 && !drops) return false;  // The room is for those at the door.
  const int64_t own = drops ? queue.RowsOf(flow, level) : 0;
  absl::Span<PendingRequest* const> others;
  if (missing > own) {
    others = queue.TurnOutFor(flow, request.rows(), level, missing - own);
    if (others.empty()) return false;
  }
  if (drops) {
    do {
      SupersedeOldest(flow, actions);
    } while (!room_.HasRoom(request) && queue.RowsOf(flow, level) > 0);
  }
  for (PendingRequest* const other : others) TurnOut(*other, now, actions);
  return true;
}

void Dispatcher::TurnOut(PendingRequest& request, absl::Time now, Actions& actions) {
  if (request.overflow == Overflow::kBlock) {  // Back to the door, before those behind it.
    room_.Remove(request);
    ReleaseBytes(request, actions);
    actions.door_moves.push_back({request.self, 1});
    return room_.Park(request, WaitingFlows::NextAtDoor(request));
  }
  Drop(request,
       DropsOldest(request) ? Superseded("requests of other streams")
                            : QueueFull(RowsThatWait(request.level), now),
       actions);
}

bool Dispatcher::SupersedeOldest(const Flow& flow, Actions& actions) {
  PendingRequest* const oldest = flows_.FirstOf(flow);
  if (oldest == nullptr) return false;
  Drop(*oldest, Superseded("a newer one of its stream"), actions);
  return true;
}

void Dispatcher::LetInParked(Actions& actions) {
  while (PendingRequest* const request = room_.FirstToLetIn()) {
    if (!TakeBytes(*request, actions)) return;
    room_.Remove(*request);
    room_.Enter(*request);
    actions.door_moves.push_back({request->self, -1});
  }
}

bool Dispatcher::TakeBytes(PendingRequest& request, Actions& actions) {
  const int64_t bytes = request.input_bytes();
  MemoryBudget* const memory = options_.memory;
  const auto try_to = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!BytesFit(bytes, held_bytes_)) return false;
    if (memory == nullptr) return true;
    // What was freed a moment ago hasn't been given back yet.
    const int64_t freed = std::min(bytes, actions.freed_bytes);
    if (!memory->TryTake(shared_from_this(), bytes - freed)) return false;
    actions.freed_bytes -= freed;
    return true;
  };
  if (!try_to()) {
    const int64_t own = DropsOldest(request) ? flows_.BytesOf(request.flow()) : 0;
    if (own == 0 || !BytesFit(bytes, held_bytes_ - own)) return false;
    const int64_t left = memory == nullptr ? 0 : memory->taken() - actions.freed_bytes - own;
    if (left > 0 && bytes > memory->limit() - left) return false;
    do {
      if (!SupersedeOldest(request.flow(), actions)) return false;
    } while (!try_to());
  }
  held_bytes_ += bytes;
  request.held_bytes = bytes;
  return true;
}

void Dispatcher::ReleaseBytes(PendingRequest& request, Actions& actions) {
  held_bytes_ -= request.held_bytes;
  if (options_.memory != nullptr) actions.freed_bytes += request.held_bytes;
  request.held_bytes = 0;
}

Refusal Dispatcher::QueueFull(const std::string& why, absl::Time now) const {
  return {absl::ResourceExhaustedError(
              absl::StrCat("Exceeds maximum queue size: ", why, "; retry later")),
          Rejection::kQueueFull, RetryAfter(now)};
}

std::string Dispatcher::WhatIsFull(const PendingRequest& request) const {
  if (!room_.HasRoom(request)) return RowsThatWait(request.level);
  const int64_t bytes = request.input_bytes();
  if (!BytesFit(bytes, held_bytes_)) {
    return absl::StrCat("the request has ", bytes, " bytes, and model '", signature_->model_name(),
                        "' holds ", held_bytes_, " of at most ", options_.max_queue_bytes);
  }
  if (options_.memory != nullptr && bytes > options_.memory->limit() - options_.memory->taken()) {
    return absl::StrCat("the request has ", bytes, " bytes, and all models together hold ",
                        options_.memory->taken(), " of at most ", options_.memory->limit());
  }
  return absl::StrCat("others wait for room in the queue of model '", signature_->model_name(),
                      "' already");
}

std::string Dispatcher::RowsThatWait(int level) const {
  return absl::StrCat(room_.queue().rows(level), " rows wait for model '", signature_->model_name(),
                      "', at most ", room_.most_rows(level), " may");
}

absl::Duration Dispatcher::RetryAfter(absl::Time now) const {
  return std::clamp(WaitBehindAll(now), kSoonestRetry, kLatestRetry);
}

Dispatcher::Forecast Dispatcher::Foresee(const Flow* flow, int level, int64_t rows,
                                         int64_t most_ahead, absl::Time now) const {
  Forecast forecast = {.wait = absl::ZeroDuration(), .batch_rows = rows};
  if (runners_.all() == 0) return forecast;
  // Before the request go those that are staged, and as many of each line as of its own.
  const FairQueue& queue = room_.queue();
  const int64_t own = flow == nullptr ? 0 : queue.RowsOf(*flow, level);
  const int64_t queued = queue.RowsUpTo(level);
  const int64_t in_turn = std::min({queued, (own + rows) * queue.LinesUpTo(level), most_ahead});
  const int64_t ahead = staging_.rows() + in_turn;
  forecast.batch_rows = std::min(most_rows(), ahead + rows);
  const int64_t full_batches = ahead / most_rows();
  if (full_batches == 0) {
    forecast.wait = runners_.UntilFirstIdle(now);
    return forecast;
  }
  const double share = queued == 0 ? 0 : static_cast<double>(in_turn) / static_cast<double>(queued);
  const double row_cost =
      (staging_.cost() + share * queue.CostUpTo(level)) / static_cast<double>(ahead);
  const auto rows_before = static_cast<double>(full_batches * most_rows());
  forecast.wait =
      (runners_.UntilAllIdle(now) + absl::Nanoseconds(rows_before * row_cost)) / runners_.all();
  return forecast;
}

absl::Duration Dispatcher::WaitBehindAll(absl::Time now) const {
  const auto lowest = static_cast<int>(options_.levels.size());
  return Foresee(nullptr, lowest, 1, room_.queue().rows(), now).wait;
}

bool Dispatcher::CanMakeIt(const PendingRequest& request, absl::Time now) const {
  if (request.deadline == absl::InfiniteFuture()) return true;
  const RowShape& shape = *request.row_shape();
  if (!costs_.IsFresh(shape, now)) return true;
  // Of its own level, those without a deadline let it go out of turn.
  const FairQueue& queue = room_.queue();
  const int level = request.level;
  const int64_t in_turn =
      (queue.RowsOf(request.flow(), level) + request.rows()) * queue.LinesWithDeadlines(level);
  const int64_t most_ahead =
      queue.RowsUpTo(level - 1) + std::min(room_.RowsWithDeadline(level), in_turn);
  const Forecast forecast = Foresee(&request.flow(), level, request.rows(), most_ahead, now);
  return now + forecast.wait + costs_.Predict(shape, forecast.batch_rows) <= request.deadline;
}

// ---- Preparing them ----

absl::AnyInvocable<void()> Dispatcher::NextPreparation() {
  MutexLock lock(mutex_);
  PreparationQueue& preparations = room_.preparations();
  if (!preparations.HasWork(prepare_ahead_)) return {};
  PendingRequest& request = preparations.Take();
  const auto job = [self = shared_from_this(), request = request.self,
                    row = request.rows_taken - 1] { self->Prepare(request, row); };
  return job;
}

void Dispatcher::Prepare(const std::shared_ptr<PendingRequest>& request, int64_t row) {
  const absl::Time begin = clock_.Now();
  const bool given_up = request->answered();
  const absl::Status status = given_up ? absl::OkStatus() : request->filler().Prepare(row);
  const absl::Time now = clock_.Now();
  metrics_.RecordPreparation(begin - request->arrival, now - begin);
  Actions actions;
  {
    MutexLock lock(mutex_);
    request->prepare_time += now - begin;
    ++request->rows_prepared;
    if (!status.ok()) {
      // It may have been dropped meanwhile.
      if (request->places > 0) Drop(*request, {status, Rejection::kInvalid}, actions);
    } else if (request->prepared()) {
      room_.Prepared(*request);
    }
    if (status.ok() && !given_up) stage_times_.Decoded(now - begin);
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

// ---- Giving requests up ----

void Dispatcher::Refuse(std::shared_ptr<PendingRequest> request, Refusal refusal,
                        Actions& actions) {
  if (refusal.reason) metrics_.RecordRejection(*refusal.reason);
  ReleaseBytes(*request, actions);
  actions.failures.push_back({std::move(request), std::move(refusal)});
}

void Dispatcher::Drop(PendingRequest& request, Refusal refusal, Actions& actions) {
  const std::shared_ptr<PendingRequest> keep = request.self;
  if (WaitingRoom::Holds(request)) {
    if (WaitingRoom::IsParked(request)) actions.door_moves.push_back({keep, -1});
    room_.Remove(request);
    flows_.RemovePlace(request);
  }
  staging_.Remove(request);
  if (refusal.reason == Rejection::kDeadline) {
    metrics_.RecordDeadlineExceeded(RequestStage::kQueue);
  } else if (absl::IsCancelled(refusal.status)) {
    metrics_.RecordCancelled(RequestStage::kQueue);
  }
  Refuse(keep, std::move(refusal), actions);
}

bool Dispatcher::DropIfExpired(PendingRequest& request, absl::Time now, Actions& actions) {
  std::optional<Refusal> refusal = limits_.WhyExpired(request, now);
  if (!refusal) return false;
  if (refusal->reason == Rejection::kShed) refusal->retry_after = RetryAfter(now);
  Drop(request, *std::move(refusal), actions);
  return true;
}

// ---- Replicas ----

void Dispatcher::AddRunner(BatchRunner* runner) {
  const absl::Time now = clock_.Now();
  {
    MutexLock lock(mutex_);
    runners_.AddIdle(runner, now);
    lacks_from_ = absl::InfiniteFuture();
  }
  Pump();
}

bool Dispatcher::RetireRunner(BatchRunner* runner) {
  const absl::Time now = clock_.Now();
  MutexLock lock(mutex_);
  return runners_.Retire(runner, now);
}

void Dispatcher::ExpectCost(const RowShape& shape, ReplicaKind kind, int64_t rows,
                            absl::Duration took) {
  MutexLock lock(mutex_);
  costs_.Expect(shape, kind, rows, took);
}

void Dispatcher::LimitRows(int64_t rows) {
  MutexLock lock(mutex_);
  most_rows_ = rows;
}

void Dispatcher::Started(Batch& batch, BatchRunner* runner, absl::Time now) {
  absl::Time oldest = absl::InfiniteFuture();  // Of those who may be shed.
  for (const Batch::Member& member : batch.members()) {
    if (member.vacated()) continue;
    PendingRequest& request = *member.request;
    if (request.overflow == Overflow::kReject) oldest = std::min(oldest, request.arrival);
    request.started = true;
    flows_.RemovePlace(request);
  }
  if (oldest != absl::InfiniteFuture()) overload_.BatchTaken(now, now - oldest);
  const CostModel* const cost = costs_.Find(batch.shape(), runner->kind());
  runners_.Start(runner, cost == nullptr ? absl::InfinitePast() : now + cost->Predict(batch.rows()),
                 now);
}

void Dispatcher::ExpectReturns(const Batch& batch, absl::Time now) {
  if (options_.policy.hold == Hold::kNone) return;
  for (const Batch::Member& member : batch.members()) {
    const bool last = member.first_row + member.rows == member.request->rows();
    if (last) returns_.Answered(member.request->flow().id(), now);
  }
}

void Dispatcher::Finish(BatchRunner* runner, std::unique_ptr<Batch> batch,
                        const absl::StatusOr<std::vector<OutputView>>& outputs,
                        absl::Duration execute, int replica) {
  if (runner->lease_cores() > 0) leases_.Release(runner->lease_cores());
  const absl::Time now = clock_.Now();
  Actions starts;
  {
    MutexLock lock(mutex_);
    runners_.AddIdle(runner, now);
    last_finish_ = now;
    if (outputs.ok()) {
      costs_.Observe(batch->shape(), runner->kind(), batch->rows(), execute, now);
      stage_times_.Executed(batch->rows(), execute, runner->lease_cores());
      ExpectReturns(*batch, now);
    }
    while (CollectStart(now, starts) && starts.starts.empty()) {
    }
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

void Dispatcher::Requeue(BatchRunner* runner, std::unique_ptr<Batch> batch,
                         const std::string& ending) {
  if (runner->lease_cores() > 0) leases_.Release(runner->lease_cores());
  const absl::Time now = clock_.Now();
  const std::vector<Batch::Member>& members = batch->members();
  PendingRequest& first = *members.front().request;
  std::optional<uint64_t> culprit;  // Of several, nobody knows yet whose fault it is.
  if (members.size() == 1) culprit = first.filler().Fingerprint();
  Actions actions;
  {
    MutexLock lock(mutex_);
    runners_.RemoveBusy(runner, now);
    if (culprit) {
      suspects_.Add(*culprit);
      has_suspects_.store(true, std::memory_order_relaxed);
    }
    if (!culprit || ++first.deaths < options_.max_deaths) {
      RunAgain(members, true, now, actions);
    } else {
      Refuse(members.front().request, {GivenUp(first, ending)}, actions);
    }
    staging_.FreeBuffer(batch->buffer());
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

absl::Status Dispatcher::GivenUp(const PendingRequest& request, const std::string& ending) const {
  const std::string what =
      request.suspect
          ? "a replica died or hung while it ran this request alone, as others did of the same "
            "payload before; it "
          : absl::StrCat(request.deaths,
                         " replicas died or hung while they ran this request alone; the last ");
  return absl::InternalError(
      absl::StrCat("model '", signature_->model_name(), "': ", what, ending));
}

void Dispatcher::RunAgain(absl::Span<const Batch::Member> members, bool first, absl::Time now,
                          Actions& actions) {
  StagingArea::Retry again;
  for (const Batch::Member& member : members) {
    PendingRequest& request = *member.request;
    if (request.answered()) continue;  // Another part of it has failed.
    if (!stopped_.ok() || request.caller().cancelled()) {
      if (stopped_.ok()) metrics_.RecordCancelled(RequestStage::kExecution);
      Refuse(member.request, stopped_.ok() ? Cancelled() : Refusal{stopped_}, actions);
      continue;
    }
    // One that is in the queue, too, expires there.
    if (!WaitingRoom::Holds(request)) limits_.Update(request, now);
    again.push_back(member);
  }
  const auto middle = again.begin() + static_cast<std::ptrdiff_t>((again.size() + 1) / 2);
  staging_.RunAgain({{again.begin(), middle}, {middle, again.end()}}, first);
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
                             .prepare = member.request->prepare_time,
                             .fill = batch.fill_time(),
                             .execute = execute,
                             .output = absl::ZeroDuration(),
                             .batch_rows = batch.rows(),
                             .replica = replica,
                             .fill_begin = member.fill_begin,
                             .fill_end = member.fill_end,
                             .started = batch.started};
    if (auto answer = member.request->AddRows(*signature_, outputs, member.batch_row,
                                              member.first_row, member.rows, timings)) {
      answers.emplace_back(member.request.get(), *std::move(answer));
    }
  }
  std::optional<uint64_t> innocent;
  const PendingRequest& first = *batch.members().front().request;
  if (first.suspect && !answers.empty()) innocent = first.filler().Fingerprint();
  const absl::Time now = clock_.Now();
  metrics_.RecordBatch({.rows = batch.rows(),
                        .requests = static_cast<int64_t>(batch.members().size()),
                        .fill = batch.fill_time(),
                        .execute = execute,
                        .output = now - copy_begins});
  Actions freed;
  {
    MutexLock lock(mutex_);
    staging_.FreeBuffer(batch.buffer());
    for (auto& [request, answer] : answers) {
      ReleaseBytes(*request, freed);
      if (!failing_.empty()) failing_.Succeeded(request->flow().id());
    }
    if (innocent) {
      suspects_.Remove(*innocent);
      has_suspects_.store(!suspects_.empty(), std::memory_order_relaxed);
    }
  }
  for (auto& [request, answer] : answers) {
    answer.response.timings.output = now - copy_begins;
    Send(*request, std::move(answer), now);
  }
  Perform(std::move(freed));
}

void Dispatcher::Isolate(const Batch& batch, const absl::Status& status) {
  const absl::Time now = clock_.Now();
  std::vector<Batch::Member> members = batch.members();
  const bool out_of_memory = absl::IsResourceExhausted(status);
  if (out_of_memory && members.size() == 1 && members.front().rows > 1 && outputs_are_fixed_) {
    members.push_back(SplitOff(members.front()));
  }
  Actions actions;
  {
    MutexLock lock(mutex_);
    staging_.FreeBuffer(batch.buffer());
    if (out_of_memory) caps_.RanOut(batch.shape(), batch.rows(), now);
    if (members.size() > 1) {
      RunAgain(members, false, now, actions);
    } else {
      if (!out_of_memory) failing_.Failed(members.front().request->flow().id(), now);
      Refuse(members.front().request, {status}, actions);
    }
  }
  Perform(std::move(actions));
}

void Dispatcher::Send(PendingRequest& request, PendingRequest::Answer&& answer, absl::Time now) {
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  Timings& timings = answer.response.timings;
  timings.arrival = request.arrival;
  timings.answered = now;
  if (answer.response.status.ok()) {
    if (now > request.deadline) metrics_.RecordDeadlineExceeded(RequestStage::kExecution);
    if (request.caller().cancelled()) metrics_.RecordCancelled(RequestStage::kExecution);
  }
  metrics_.RecordRequest({.code = static_cast<int>(answer.response.status.code()),
                          .rows = request.rows(),
                          .total = now - request.arrival,
                          .queue = timings.queue,
                          .compute_input = timings.fill,
                          .compute_infer = timings.execute,
                          .compute_output = timings.output,
                          .non_finite = answer.response.non_finite > 0});
  answer.responder.Respond(std::move(answer.response));
}

void Dispatcher::Fail(const Failure& failure) {
  const auto& [request, refusal] = failure;
  if (auto answer = request->Fail(*signature_, refusal.status)) {
    if (refusal.retry_after != absl::InfiniteDuration()) {
      answer->response.retry_after = refusal.retry_after;
    }
    Send(*request, *std::move(answer), clock_.Now());
  }
}

// ---- What can be done now ----

void Dispatcher::Pump() {
  const absl::Time now = clock_.Now();
  Actions actions;
  {
    MutexLock lock(mutex_);
    Collect(now, actions);
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
    for (const Failure& failure : actions.failures) Fail(failure);
    for (const DoorMove& move : actions.door_moves) move.request->flow().Parked(move.change);
    if (actions.leased_cores > 0) leases_.Release(actions.leased_cores);
    if (actions.wake_other_models) leases_.WakeFirst();
    if (actions.freed_bytes > 0) options_.memory->GiveBack(actions.freed_bytes);
    if (actions.rows_to_prepare) options_.preparers->WorkWaits(shared_from_this());
    actions = PerformFills(actions.fills);
  }
}

Dispatcher::Actions Dispatcher::PerformFills(absl::Span<const StagingArea::Fill> fills) {
  Actions next;
  if (fills.empty()) return next;
  struct Outcome {
    absl::Status status;
    absl::Duration took;
    absl::Time end;
  };
  absl::InlinedVector<Outcome, 4> outcomes;
  absl::Time end = clock_.Now();
  for (const StagingArea::Fill& fill : fills) {
    const absl::Time begin = end;
    absl::Status status =
        fill.batch->Fill(*fill.request, fill.first_row, fill.rows, fill.batch_row);
    end = clock_.Now();
    if (fill.request->needs_preparation()) metrics_.RecordPreparedFill(fill.rows, end - begin);
    outcomes.push_back({std::move(status), end - begin, end});
  }
  MutexLock lock(mutex_);
  for (size_t i = 0; i < fills.size(); ++i) {
    fills[i].batch->Filled(fills[i].member, outcomes[i].took, outcomes[i].end);
    if (fills[i].request->needs_preparation()) stage_times_.Filled(fills[i].rows, outcomes[i].took);
    if (!outcomes[i].status.ok() && !fills[i].batch->members()[fills[i].member].vacated()) {
      Drop(*fills[i].request, {outcomes[i].status}, next);
    }
  }
  Collect(end, next);
  return next;
}

void Dispatcher::Collect(absl::Time now, Actions& actions) {
  CollectHopeless(now, actions);
  CollectExpired(now, actions);
  staging_.FreeEmptyBatches();
  staging_.GatherRetries(actions.fills);
  do {  // The start of a staged batch leaves its place to the next.
    CollectStaging(now, actions);
  } while (CollectStart(now, actions));
  actions.rows_to_prepare = room_.preparations().HasWork(prepare_ahead_);
  WakeAt(std::min(room_.next_expiry(), staging_.next_expiry()));
  if (lacks_from_ > now) WakeAt(lacks_from_);
  if (now >= next_glance_) LeaveGlance(now);
  last_event_ns_.store(absl::ToUnixNanos(now), std::memory_order_release);
}

void Dispatcher::CollectHopeless(absl::Time now, Actions& actions) {
  if (!LacksReplicas(now)) return;
  for (const auto& request : flows_.All()) {
    Drop(*request, {lacks_, Rejection::kNotReady}, actions);
  }
}

bool Dispatcher::LacksReplicas(absl::Time now) const {
  return lacks_from_ <= now && runners_.all() == 0;
}

void Dispatcher::CollectExpired(absl::Time now, Actions& actions) {
  while (PendingRequest* const request = room_.Expired(now)) {
    if (DropIfExpired(*request, now, actions)) continue;
    if (limits_.IsToBeDelayed(*request, now)) room_.Delay(*request);
    room_.Update(*request, [&](PendingRequest& changed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      limits_.Update(changed, now);
    });
  }
  if (staging_.next_expiry() > now) return;
  for (PendingRequest* const request : staging_.Expired(now)) {
    if (request->places == 0) continue;  // It was there with several parts.
    if (DropIfExpired(*request, now, actions)) continue;
    // The next batch is its own: too late to let others go before it.
    if (limits_.IsToBeDelayed(*request, now)) request->delayed = true;
    limits_.Update(*request, now);
    staging_.ExpiresAt(request->expiry);
  }
}

// ---- Staging ----

void Dispatcher::CollectStaging(absl::Time now, Actions& actions) {
  do {
    LetInParked(actions);
  } while (!room_.queue().empty() && StageNext(now, actions));
}

bool Dispatcher::StageNext(absl::Time now, Actions& actions) {
  PendingRequest* const urgent = NextUrgent(now);
  PendingRequest* const overdue = urgent == nullptr ? NextOverdue(now) : nullptr;
  PendingRequest* request = urgent != nullptr ? urgent : overdue;
  const bool out_of_turn = request != nullptr && HasRoom(*request, now);
  if (!out_of_turn) request = NextInTurn(now);
  if (request == nullptr) return false;
  if (request->rows_claimed > 0 && request->answered()) {  // An earlier part has failed.
    Drop(*request, {absl::InternalError("Another part of the request has failed.")}, actions);
    return true;
  }
  if (limits_.MayHaveExpired(*request, now) && DropIfExpired(*request, now, actions)) return true;
  const RowShape& shape = *request->row_shape();
  Batch* batch = staging_.Find(shape);
  if (batch == nullptr) {
    const absl::StatusOr<Batch*> opened =
        staging_.Open(*request, RowsOfBatchFor(*request, now), costs_.RowCost(shape, most_rows()));
    if (!opened.ok()) {
      Drop(*request, {opened.status()}, actions);
      return true;
    }
    batch = *opened;
  }
  if (out_of_turn) request->out_of_turn = true;
  const bool by_guard = out_of_turn && request == overdue;
  actions.fills.push_back(staging_.Stage(*request, *batch));
  if (RunsAlone(*request, now)) batch->Close();
  CountForGuard(by_guard, actions.fills.back().rows);
  return true;
}

void Dispatcher::CountForGuard(bool by_guard, int64_t rows) {
  guarded_rows_ = by_guard ? guarded_rows_ + rows : std::max<int64_t>(0, guarded_rows_ - rows);
}

PendingRequest* Dispatcher::NextInTurn(absl::Time now) {
  FairQueue& queue = room_.queue();
  PassedOver passed_over;
  while (ShapeGroup* const group = NextGroup(passed_over)) {
    Batch* const batch = staging_.Find(*group->shape);
    const int64_t capacity = batch == nullptr ? most_rows() : batch->capacity();
    const double row_cost =
        batch == nullptr ? costs_.RowCost(*group->shape, capacity) : batch->row_cost;
    for (int tier = group->tier(); tier < queue.tiers(); ++tier) {
      if (group->ring(tier).size == 0) continue;
      for (bool yielded = false;; yielded = true) {
        const int64_t room = batch == nullptr ? capacity : batch->Room();
        PendingRequest* const request = queue.Next(*group, tier, room, capacity, row_cost);
        if (request != nullptr && (batch == nullptr || !RunsAlone(*request, now))) return request;
        if (batch == nullptr) break;
        if (request == nullptr &&
            staging_.YieldTo(tier, FairQueue::SmallestPiece(*group, tier, capacity), *batch)) {
          continue;
        }
        batch->in_vain |= yielded;  // Or they would come and go for ever.
        break;
      }
    }
    passed_over.push_back(group);
  }
  return nullptr;
}

ShapeGroup* Dispatcher::NextGroup(const PassedOver& passed_over) {
  FairQueue& queue = room_.queue();
  const auto eligible = [&](const ShapeGroup& group) {
    return std::find(passed_over.begin(), passed_over.end(), &group) == passed_over.end();
  };
  if (staging_.HasBuffer()) return queue.NextGroup(eligible);
  ShapeGroup* next = nullptr;
  for (const auto& batch : staging_.batches()) {
    ShapeGroup* const group = batch->retry ? nullptr : queue.GroupOf(batch->shape());
    if (group == nullptr || !eligible(*group)) continue;
    if (next == nullptr || group->ComesBefore(*next)) next = group;
  }
  return next;
}

PendingRequest* Dispatcher::NextUrgent(absl::Time now) const {
  const FairQueue& queue = room_.queue();
  const int level = queue.highest_level();
  const PendingRequest* const first = room_.MostUrgent(level);
  if (first == nullptr) return nullptr;
  // It misses its deadline unless it is in the batch that starts when the next replica is free: the
  // one after that ends two batches later. What it takes out of turn is its flow's debt, and too
  // deep in debt it waits like others.
  const absl::Time free = now + runners_.UntilFirstIdle(now);
  const auto has_to_go_by = [&](const PendingRequest& request,
                                absl::Duration one_batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const int64_t rows = std::min(request.rows(), most_rows());
    return free + 2 * one_batch - costs_.Predict(*request.row_shape(), rows);
  };
  const auto batch_of = [&](const PendingRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return costs_.Predict(*request.row_shape(), most_rows());
  };
  const bool one_shape = queue.shapes() == 1;
  const PendingRequest* const urgent = room_.MostUrgent(
      level, one_shape ? has_to_go_by(*first, batch_of(*first)) : absl::InfiniteFuture(),
      [&](const PendingRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        const absl::Duration one_batch = batch_of(request);
        return FairQueue::FirstInLine(request).prepared() &&
               request.line->credit > -absl::ToDoubleNanoseconds(one_batch) &&
               (one_shape || request.latest_start < has_to_go_by(request, one_batch));
      });
  return urgent == nullptr ? nullptr : &FairQueue::FirstInLine(*urgent);
}

PendingRequest* Dispatcher::NextOverdue(absl::Time now) const {
  if (!GuardAllows()) return nullptr;
  PendingRequest* const overdue = room_.queue().Overdue(now - options_.starvation_guard);
  if (overdue == nullptr) return nullptr;
  PendingRequest& next = FairQueue::FirstInLine(*overdue);
  return next.prepared() ? &next : nullptr;
}

bool Dispatcher::GuardAllows() const {
  // Every other row at most is for the overdue, or a crowd of them would be a higher level.
  return options_.starvation_guard != absl::InfiniteDuration() && guarded_rows_ == 0;
}

bool Dispatcher::HasRoom(const PendingRequest& request, absl::Time now) const {
  const Batch* const batch = staging_.Find(*request.row_shape());
  if (batch == nullptr) return staging_.HasBuffer();
  if (RunsAlone(request, now)) return false;
  return batch->HasRoom(batch->PieceOf(request.rows() - request.rows_claimed));
}

bool Dispatcher::RunsAlone(const PendingRequest& request, absl::Time now) const {
  return request.suspect || failing_.Contains(request.flow().id(), now);
}

int64_t Dispatcher::RowsOfBatchFor(const PendingRequest& request, absl::Time now) const {
  // A request whose rows can't be told apart must fit in whole.
  const int64_t least = outputs_are_fixed_ ? 1 : std::min(request.rows(), most_rows());
  const int64_t most = std::max(least, caps_.For(*request.row_shape(), most_rows(), now));
  if (runners_.idle() < 2 || !outputs_are_fixed_) return most;
  const CostModel* const cost = costs_.Find(*request.row_shape(), runners_.Next()->kind());
  if (cost == nullptr) return most;
  return BatchPolicy::RowsPerReplica(room_.queue().rows(), most, runners_.idle(),
                                     runners_.utilisation(now), *cost);
}

// ---- Starting ----

bool Dispatcher::CollectStart(absl::Time now, Actions& actions) {
  if (staging_.FreeEmptyBatches()) return true;
  BatchRunner* const runner = runners_.Next();
  Batch* const next = runner == nullptr ? nullptr : NextToStart(now);
  if (next != nullptr) {
    if (!AcquireLease(*runner, actions)) return false;
    if (!FitDeadlines(*next, runner->kind(), now, actions)) return true;
    const auto outranks_next = [&](const std::unique_ptr<Batch>& batch) {
      return batch->summary().highest_tier < next->summary().highest_tier;
    };
    if (!next->retry &&
        std::any_of(staging_.batches().begin(), staging_.batches().end(), outranks_next)) {
      CountForGuard(true, next->rows());
    }
    Started(*next, runner, now);
    actions.starts.push_back({runner, staging_.Take(*next)});
    actions.leased_cores = 0;
    return true;
  }
  // A batch into which somebody is just writing keeps the model's turn: it goes in a moment.
  const bool goes_soon =
      runner != nullptr &&
      std::any_of(staging_.batches().begin(), staging_.batches().end(),
                  [](const std::unique_ptr<Batch>& batch) { return batch->filling() > 0; });
  if (!goes_soon) LeaveLeaseLine(actions);
  return false;
}

Batch* Dispatcher::NextToStart(absl::Time now) {
  Batch* next = nullptr;
  for (const auto& batch : staging_.batches()) {
    if (batch->filling() > 0) continue;  // Whoever fills it last comes by again.
    // Nobody overtakes those in the queue, who found no place.
    const bool closed = batch->closed() || !room_.queue().empty();
    absl::Time go_at = options_.policy.GoAt({.rows = batch->rows(),
                                             .closed = closed,
                                             .oldest_arrival = batch->summary().oldest_arrival,
                                             .hold_until = closed ? now : HoldUntil(*batch, now)});
    if (go_at > now) go_at = std::min(go_at, LatestStart(*batch));
    if (go_at > now) {
      WakeAt(go_at);
    } else if (next == nullptr || GoesBefore(*batch, *next, now)) {
      next = batch.get();
    }
  }
  return next;
}

// Batches that are run again go first, then those of higher priority, then whoever has waited
// longest.
bool Dispatcher::GoesBefore(const Batch& a, const Batch& b, absl::Time now) const {
  if (a.retry != b.retry) return a.retry;
  const Batch::Summary& first = a.summary();
  const Batch::Summary& second = b.summary();
  if (first.highest_tier == second.highest_tier) {
    return a.turn != b.turn ? a.turn < b.turn : first.oldest_arrival < second.oldest_arrival;
  }
  // Of another shape, who is overdue may be staged and wait all the same.
  const Batch::Summary& lower = first.highest_tier < second.highest_tier ? second : first;
  if (GuardAllows() && lower.oldest_arrival < now - options_.starvation_guard) {
    return &lower == &first;
  }
  return &lower == &second;
}

absl::Time Dispatcher::HoldUntil(const Batch& batch, absl::Time now) const {
  if (options_.policy.hold == Hold::kNone) return absl::InfinitePast();
  const CostModel* const cost = costs_.Find(batch.shape(), runners_.Next()->kind());
  if (cost == nullptr) return absl::InfinitePast();
  // Where others are idle too, each gets its share of those who return, not one all of them.
  const int sharing = runners_.idle() > 1 ? runners_.all() : 1;
  return returns_.HoldUntil(now, batch.rows(), batch.capacity(), sharing, cost->setup());
}

absl::Time Dispatcher::LatestStart(const Batch& batch) const {
  const absl::Duration runs = costs_.Predict(batch.shape(), batch.capacity());
  const Batch::Summary& members = batch.summary();
  return std::min(members.next_expiry, members.next_deadline - runs) - kMargin;
}

bool Dispatcher::FitDeadlines(Batch& batch, ReplicaKind kind, absl::Time now, Actions& actions) {
  const CostModel* const cost = costs_.Find(batch.shape(), kind);
  if (batch.retry || cost == nullptr || !costs_.IsFresh(batch.shape(), now)) return true;
  const bool others_wait = !room_.queue().empty();
  // Of the members, the most urgent first.
  struct Place {
    absl::Time deadline, arrival;
    size_t member;
  };
  absl::InlinedVector<Place, 32> places;
  for (size_t i = 0; i < batch.members().size(); ++i) {
    const Batch::Member& member = batch.members()[i];
    if (!member.vacated()) places.push_back({member.request->deadline, member.request->arrival, i});
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.deadline != b.deadline ? a.deadline < b.deadline : a.arrival < b.arrival;
  });
  bool given_up = false;
  for (auto urgent = places.begin(); urgent != places.end(); ++urgent) {
    if (urgent->deadline == absl::InfiniteFuture()) break;
    const Batch::Member& member = batch.members()[urgent->member];
    if (member.vacated()) continue;  // It was given up with another part of it.
    const absl::Duration slack = urgent->deadline - now;
    const bool alone = cost->Predict(member.rows) <= slack;
    const BatchPolicy::Cut cut = alone
                                     ? BatchPolicy::CutFor(slack, batch.rows(), others_wait, *cost)
                                     : BatchPolicy::Cut{.rows = 0, .drop_urgent = true};
    if (cut.drop_urgent) {
      Drop(*member.request, limits_.TooLate(*member.request, now), actions);
      given_up = true;
      continue;
    }
    // Those that have most time left give way. Who can't may do so once another of its line has.
    auto patient = places.rbegin();
    auto refused = places.rend();
    while (batch.rows() > cut.rows && patient->deadline > urgent->deadline) {
      if (batch.members()[patient->member].vacated()) {
        ++patient;
      } else if (staging_.PutBack(batch, patient->member)) {
        if (refused != places.rend()) patient = std::exchange(refused, places.rend());
      } else {
        if (refused == places.rend()) refused = patient;
        ++patient;
      }
    }
    break;
  }
  return !given_up;
}

bool Dispatcher::AcquireLease(const BatchRunner& runner, Actions& actions) {
  if (runner.lease_cores() == actions.leased_cores) return true;
  if (!leases_.TryAcquire(shared_from_this(), runner.lease_cores())) {
    waits_for_lease_ = true;
    return false;
  }
  actions.leased_cores = runner.lease_cores();
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
