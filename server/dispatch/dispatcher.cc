// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/dispatcher.h"

#include <algorithm>

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

// Batches that are run again go first, then those of higher priority, then whoever has waited
// longest.
bool GoesBefore(const Batch& a, const Batch& b) {
  if (a.retry != b.retry) return a.retry;
  if (a.tier != b.tier) return a.tier < b.tier;
  return a.turn != b.turn ? a.turn < b.turn : a.oldest_arrival() < b.oldest_arrival();
}

absl::Status Cancelled() { return absl::CancelledError("The caller cancelled the request."); }

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

int64_t BytesOf(const PendingRequest& request) {
  size_t row = 0;
  for (const size_t bytes : request.row_shape()->row_bytes) row += bytes;
  return static_cast<int64_t>(row) * request.rows();
}

// How many of a flow's requests may wait.
int64_t MostWaiting(const PendingRequest& request) {
  if (request.overflow == Overflow::kLatest) return 1;
  return request.overflow == Overflow::kDropOldest ? request.flow().most_waiting()
                                                   : std::numeric_limits<int64_t>::max();
}

// Whether a member of a batch can go back to the queue: whole, and with nobody of its line behind
// it who would then overtake it.
bool CanBePutBack(const Batch& batch, size_t index) {
  const std::vector<Batch::Member>& members = batch.members();
  const Batch::Member& member = members[index];
  const PendingRequest& request = *member.request;
  if (member.vacated || member.rows < request.rows()) return false;
  for (size_t i = index + 1; i < members.size(); ++i) {
    const bool same_line = members[i].request->flow().id() == request.flow().id() &&
                           members[i].request->tier == request.tier;
    if (same_line && !members[i].vacated) return false;
  }
  return true;
}

bool DropsOldest(const PendingRequest& request) {
  return request.overflow == Overflow::kDropOldest || request.overflow == Overflow::kLatest;
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
      room_(MostRows(options_)),
      overload_(options_.overload),
      free_buffers_(std::move(buffers)) {}

Dispatcher::~Dispatcher() {
  std::vector<std::shared_ptr<PendingRequest>> left;  // Freed after the lock: they answer.
  MutexLock lock(mutex_);
  for (const auto& [id, flow] : flows_) {
    PendingRequest* next = flow->requests.front();
    while (PendingRequest* const request = next) {
      next = WaitingRequests::Next(*request);
      left.push_back(std::move(request->self));
    }
  }
}

// ---- Requests ----

void Dispatcher::Submit(std::shared_ptr<PendingRequest> request) {
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  const absl::Time now = request->arrival;  // A moment ago.
  Actions actions;
  {
    MutexLock lock(mutex_);
    if (!stopped_.ok()) {
      actions.failures.push_back({std::move(request), stopped_});
    } else if (request->caller().cancelled()) {
      actions.failures.push_back({std::move(request), Cancelled()});
    } else {
      Admit(std::move(request), now, actions);
    }
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

void Dispatcher::Cancel(const Caller& caller) {
  const absl::Time now = clock_.Now();
  Actions actions;
  {
    MutexLock lock(mutex_);
    const auto flow = flows_.find(caller.flow().id());
    if (flow == flows_.end()) return;
    PendingRequest* next = flow->second->requests.front();
    while (PendingRequest* const request = next) {
      next = WaitingRequests::Next(*request);
      if (&request->caller() == &caller) Drop(*request, Cancelled(), actions);
    }
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

void Dispatcher::Stop(const absl::Status& status) {
  const absl::Time now = clock_.Now();
  Actions actions;
  {
    MutexLock lock(mutex_);
    stopped_ = status;
    while (!flows_.empty()) {
      Drop(*flows_.begin()->second->requests.front(), status, actions);
    }
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

Dispatcher::Gauges Dispatcher::gauges() const {
  const absl::Time now = clock_.Now();
  MutexLock lock(mutex_);
  absl::Time oldest = room_.queue().oldest_arrival();
  for (const auto& batch : staged_) oldest = std::min(oldest, batch->oldest_arrival());
  Gauges gauges = {.queued_rows = room_.queue().rows(),
                   .oldest_age = absl::ZeroDuration(),
                   .in_flight = in_flight_.load(std::memory_order_relaxed),
                   .idle_runners = static_cast<int>(idle_.size()),
                   .free_buffers = free_buffers_.size(),
                   .parked = room_.parked(),
                   .held_bytes = held_bytes_,
                   .predicted_wait = absl::ZeroDuration(),
                   .capacity = 0,
                   .utilisation = utilisation_.ValueAt(now),
                   .overloaded = overload_.overloaded()};
  if (oldest != absl::InfiniteFuture()) gauges.oldest_age = now - oldest;
  if (const CostTable::Entry* const latest = costs_.latest()) {
    const Forecast forecast = Foresee(nullptr, static_cast<int>(options_.levels.size()),
                                      *latest->shape, 1, room_.queue().rows(), now);
    gauges.predicted_wait = forecast.wait;
    const auto count = [&](const BatchRunner* runner) {
      gauges.capacity += latest->models[static_cast<size_t>(runner->kind())].Capacity(most_rows());
    };
    for (BatchRunner* const runner : idle_) count(runner);
    for (const Busy& busy : busy_) count(busy.runner);
  }
  return gauges;
}

std::vector<CostTable::Entry> Dispatcher::costs() const {
  MutexLock lock(mutex_);
  return costs_.Latest();
}

// ---- Letting requests in ----

void Dispatcher::Admit(std::shared_ptr<PendingRequest> pointer, absl::Time now, Actions& actions) {
  PendingRequest& request = *pointer;
  const QueuePolicy& policy = options_.levels[static_cast<size_t>(request.level) - 1];
  const bool timeout_delays =
      policy.allow_timeout_override && policy.timeout_action == QueuePolicy::TimeoutAction::kDelay;
  if (request.timeout && !timeout_delays) {
    request.deadline = std::min(request.deadline, request.arrival + *request.timeout);
  }
  request.tier = FairQueue::TierOf(request.level, false);
  if (options_.policy.hold == Hold::kReturners) returns_.Arrived(request.flow().id(), now);
  request.expiry = ExpiryOf(request, now);
  if (request.expiry <= now || !CanMakeIt(request, now)) {
    return Refuse(std::move(pointer), WhyExpired(request, now).value_or(TooLate(request, now)),
                  actions);
  }
  // A flow that has as many waiting as it may puts the new one in the place of its oldest, first,
  // so that the flow keeps its turn.
  const int64_t most_waiting = MostWaiting(request);
  if (CountOf(request.flow()) >= most_waiting && FitsInsteadOfOldest(request) &&
      TakeBytes(request, now, actions)) {
    AddPlace(pointer);
    room_.Enter(request);
    while (CountOf(request.flow()) > most_waiting) {
      SupersedeOldest(request.flow(), now, actions);
    }
    return;
  }
  while (CountOf(request.flow()) >= most_waiting && SupersedeOldest(request.flow(), now, actions)) {
  }
  // It doesn't overtake those of its flow who were turned out to the door.
  const bool overtakes =
      room_.parked() > 0 && room_.FirstAtDoor(request.flow(), request.level) != nullptr;
  bool enters = !overtakes && TakeBytes(request, now, actions);
  if (enters && !room_.MayEnter(request) && !MakeRoomFor(request, now, actions)) {
    ReleaseBytes(request, actions);
    enters = false;
  }
  if (!enters && request.overflow != Overflow::kBlock) {
    return Refuse(std::move(pointer), QueueFull(request, now), actions);
  }
  AddPlace(pointer);
  if (enters) {
    room_.Enter(request);
  } else {
    actions.door_moves.push_back({std::move(pointer), 1});
    room_.Park(request);
  }
}

bool Dispatcher::FitsInsteadOfOldest(const PendingRequest& request) const {
  if (room_.HasRoom(request)) return true;
  const PendingRequest& oldest = *flows_.find(request.flow().id())->second->requests.front();
  return WaitingRoom::Holds(oldest) && !WaitingRoom::IsParked(oldest) &&
         oldest.level == request.level && oldest.rows() - oldest.rows_claimed >= request.rows();
}

bool Dispatcher::MakeRoomFor(const PendingRequest& request, absl::Time now, Actions& actions) {
  bool made = false;
  while (!room_.HasRoom(request) || !made) {
    if (DropsOldest(request) && SupersedeOldest(request.flow(), now, actions)) {
      made = true;
      continue;
    }
    if (room_.HasRoom(request)) return false;  // It is for those at the door.
    PendingRequest* const last =
        room_.queue().TurnOutFor(request.flow(), request.rows(), request.level);
    if (last == nullptr) return false;
    TurnOut(*last, now, actions);
    made = true;
  }
  return true;
}

void Dispatcher::TurnOut(PendingRequest& request, absl::Time now, Actions& actions) {
  if (request.overflow == Overflow::kBlock) {  // Back to the door, before those behind it.
    room_.Remove(request);
    ReleaseBytes(request, actions);
    actions.door_moves.push_back({request.self, 1});
    return room_.Park(request, room_.FirstAtDoor(request.flow(), request.level));
  }
  const Refusal refusal =
      DropsOldest(request) ? Superseded("requests of other streams") : QueueFull(request, now);
  Drop(request, refusal, actions);
}

bool Dispatcher::SupersedeOldest(const Flow& flow, absl::Time /*now*/, Actions& actions) {
  const auto found = flows_.find(flow.id());
  if (found == flows_.end()) return false;
  Drop(*found->second->requests.front(), Superseded("a newer one of its stream"), actions);
  return true;
}

bool Dispatcher::TakeBytes(PendingRequest& request, absl::Time now, Actions& actions) {
  const int64_t bytes = BytesOf(request);
  while (held_bytes_ > 0 && bytes > options_.max_queue_bytes - held_bytes_) {
    if (!DropsOldest(request) || !SupersedeOldest(request.flow(), now, actions)) return false;
  }
  if (options_.memory != nullptr && !options_.memory->TryTake(shared_from_this(), bytes)) {
    return false;
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

void Dispatcher::LetInParked(absl::Time now, Actions& actions) {
  while (PendingRequest* const request = room_.FirstToLetIn()) {
    if (!TakeBytes(*request, now, actions)) return;
    room_.Remove(*request);
    room_.Enter(*request);
    actions.door_moves.push_back({request->self, -1});
  }
}

Dispatcher::Refusal Dispatcher::QueueFull(const PendingRequest& request, absl::Time now) const {
  const int64_t rows = room_.queue().rows(request.level);
  const absl::Duration drained = Foresee(nullptr, static_cast<int>(options_.levels.size()),
                                         *request.row_shape(), 1, room_.queue().rows(), now)
                                     .wait;
  return {
      absl::ResourceExhaustedError(absl::StrCat(
          "Exceeds maximum queue size: ", rows, " rows wait for model '", signature_->model_name(),
          "', at most ", room_.most_rows(request.level), " may; retry later")),
      Rejection::kQueueFull, std::clamp(drained, kSoonestRetry, kLatestRetry)};
}

Dispatcher::Refusal Dispatcher::Superseded(const char* by) {
  return {absl::AbortedError(absl::StrCat("The request was dropped: superseded by ", by, ".")),
          Rejection::kSuperseded};
}

void Dispatcher::Refuse(std::shared_ptr<PendingRequest> request, Refusal refusal,
                        Actions& actions) {
  metrics_.RecordRejection(refusal.reason);
  actions.failures.push_back({std::move(request), std::move(refusal.status), refusal.retry_after});
}

// ---- Expiry ----

absl::Time Dispatcher::LatestStart(const PendingRequest& request, absl::Time now) const {
  if (request.deadline == absl::InfiniteFuture()) return request.deadline;
  const RowShape& shape = *request.row_shape();
  if (!costs_.IsFresh(shape, now)) return request.deadline;
  return request.deadline - costs_.Predict(shape, std::min(request.rows(), most_rows()));
}

absl::Time Dispatcher::QueueTimeout(const PendingRequest& request) const {
  if (request.tier != FairQueue::TierOf(request.level, false)) return absl::InfiniteFuture();
  const QueuePolicy& policy = options_.levels[static_cast<size_t>(request.level) - 1];
  absl::Duration timeout = policy.default_timeout;
  if (policy.allow_timeout_override && request.timeout) {
    timeout = std::min(timeout, *request.timeout);
  }
  return request.arrival + timeout;
}

bool Dispatcher::IsToBeDelayed(const PendingRequest& request, absl::Time now) const {
  const QueuePolicy& policy = options_.levels[static_cast<size_t>(request.level) - 1];
  return !request.started && policy.timeout_action == QueuePolicy::TimeoutAction::kDelay &&
         QueueTimeout(request) <= now;
}

absl::Time Dispatcher::ShedTime(const PendingRequest& request) const {
  return request.overflow == Overflow::kReject ? request.arrival + overload_.MostWait()
                                               : absl::InfiniteFuture();
}

absl::Time Dispatcher::ExpiryOf(const PendingRequest& request, absl::Time now) const {
  const absl::Time latest_start = LatestStart(request, now);
  if (request.started) return latest_start;
  return std::min({latest_start, QueueTimeout(request), request.arrival + request.flow().max_age(),
                   ShedTime(request)});
}

std::optional<Dispatcher::Refusal> Dispatcher::WhyExpired(PendingRequest& request,
                                                          absl::Time now) const {
  if (LatestStart(request, now) <= now) return TooLate(request, now);
  if (request.started) return std::nullopt;
  const std::string waited = absl::FormatDuration(now - request.arrival);
  if (now - request.arrival >= request.flow().max_age()) {
    return Refusal{absl::AbortedError(absl::StrCat(
                       "The request was dropped: it waited ", waited, ", and millrace-max-age is ",
                       absl::FormatDuration(request.flow().max_age()), ".")),
                   Rejection::kTooOld};
  }
  const QueuePolicy& policy = options_.levels[static_cast<size_t>(request.level) - 1];
  if (QueueTimeout(request) <= now &&
      policy.timeout_action == QueuePolicy::TimeoutAction::kReject) {
    return Refusal{absl::DeadlineExceededError(absl::StrCat("Request timeout expired: it waited ",
                                                            waited, " in the queue of model '",
                                                            signature_->model_name(), "'")),
                   Rejection::kDeadline};
  }
  if (ShedTime(request) <= now) {
    Refusal refusal = QueueFull(request, now);
    refusal.status = absl::ResourceExhaustedError(
        absl::StrCat("Exceeds maximum queue size: model '", signature_->model_name(),
                     "' is overloaded, and the request waited ", waited, "; retry later"));
    refusal.reason = Rejection::kShed;
    return refusal;
  }
  return std::nullopt;
}

Dispatcher::Refusal Dispatcher::TooLate(const PendingRequest& request, absl::Time now) const {
  const absl::Duration left = request.deadline - now;
  return {absl::DeadlineExceededError(
              left <= absl::ZeroDuration()
                  ? std::string("Request timeout expired")
                  : absl::StrCat("Request timeout expired: ", absl::FormatDuration(left),
                                 " are left, which is too short for model '",
                                 signature_->model_name(), "' and those before it")),
          Rejection::kDeadline};
}

Dispatcher::Forecast Dispatcher::Foresee(const Flow* flow, int level, const RowShape& shape,
                                         int64_t rows, int64_t most_ahead, absl::Time now) const {
  const auto replicas = static_cast<int64_t>(idle_.size() + busy_.size());
  Forecast forecast = {.wait = absl::ZeroDuration(), .batch_rows = rows};
  if (replicas == 0) return forecast;
  // Before the request go those that are staged, and as many of each line as of its own.
  int64_t ahead = 0;
  for (const auto& batch : staged_) ahead += batch->rows();
  const int64_t own = flow == nullptr ? 0 : room_.queue().RowsOf(*flow, level);
  const int64_t in_turn = (own + rows) * room_.queue().LinesUpTo(level);
  ahead += std::min({room_.queue().RowsUpTo(level), in_turn, most_ahead});
  forecast.batch_rows = std::min(most_rows(), ahead + rows);
  const int64_t batches = ahead / most_rows();
  if (!idle_.empty() && batches == 0) return forecast;
  absl::Duration residual;
  absl::Duration first = absl::InfiniteDuration();
  for (const Busy& busy : busy_) {
    const absl::Duration left = std::max(absl::ZeroDuration(), busy.until - now);
    residual += left;
    first = std::min(first, left);
  }
  forecast.wait =
      batches == 0 ? first : (residual + batches * costs_.Predict(shape, most_rows())) / replicas;
  return forecast;
}

absl::Duration Dispatcher::FirstFree(absl::Time now) const {
  if (!idle_.empty() || busy_.empty()) return absl::ZeroDuration();
  absl::Time first = absl::InfiniteFuture();
  for (const Busy& busy : busy_) first = std::min(first, busy.until);
  return std::max(absl::ZeroDuration(), first - now);
}

bool Dispatcher::CanMakeIt(const PendingRequest& request, absl::Time now) const {
  if (request.deadline == absl::InfiniteFuture()) return true;
  const RowShape& shape = *request.row_shape();
  if (!costs_.IsFresh(shape, now)) return true;
  // Those without a deadline let it go out of turn.
  const Forecast forecast =
      Foresee(&request.flow(), request.level, shape, request.rows(), room_.expiring_rows(), now);
  return now + forecast.wait + costs_.Predict(shape, forecast.batch_rows) <= request.deadline;
}

// ---- Waiting ----

int64_t Dispatcher::CountOf(const Flow& flow) const {
  const auto found = flows_.find(flow.id());
  return found == flows_.end() ? 0 : found->second->count;
}

void Dispatcher::AddPlace(const std::shared_ptr<PendingRequest>& request) {
  if (request->places++ > 0) return;
  request->self = request;
  const auto [entry, is_new] = flows_.try_emplace(request->flow().id(), nullptr);
  if (is_new) {
    if (free_flows_.empty()) free_flows_.push_back(&flow_storage_.emplace_back());
    entry->second = free_flows_.back();
    free_flows_.pop_back();
    entry->second->id = request->flow().id();
  }
  WaitingFlow& flow = *entry->second;
  request->waiting_flow = &flow;
  ++flow.count;
  if (request->started) {  // It is older than those that wait.
    flow.requests.PushFront(*request);
  } else {
    flow.requests.PushBack(*request);
  }
}

void Dispatcher::RemovePlace(PendingRequest& request) {
  if (--request.places > 0) return;
  WaitingFlow& flow = *request.waiting_flow;
  request.waiting_flow = nullptr;
  flow.requests.Remove(request);
  if (--flow.count == 0) {
    flows_.erase(flow.id);
    free_flows_.push_back(&flow);
  }
  request.self.reset();
}

void Dispatcher::Drop(PendingRequest& request, Refusal refusal, Actions& actions) {
  metrics_.RecordRejection(refusal.reason);
  Drop(request, refusal.status, actions);
  actions.failures.back().retry_after = refusal.retry_after;
}

void Dispatcher::Drop(PendingRequest& request, const absl::Status& status, Actions& actions) {
  const std::shared_ptr<PendingRequest> keep = request.self;
  if (WaitingRoom::Holds(request)) {
    if (WaitingRoom::IsParked(request)) actions.door_moves.push_back({keep, -1});
    room_.Remove(request);
    RemovePlace(request);
  }
  for (const auto& batch : staged_) {
    for (size_t i = 0; i < batch->members().size() && request.places > 0; ++i) {
      const Batch::Member& member = batch->members()[i];
      if (member.vacated || member.request != keep) continue;
      if (!batch->retry) {
        room_.queue().Refund(request, batch->row_cost * static_cast<double>(member.rows));
      }
      batch->Vacate(i);
      RemovePlace(request);
    }
  }
  for (Retry& retry : retries_) {
    std::erase_if(retry, [&](const Batch::Member& member) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (member.request != keep) return false;
      RemovePlace(request);
      return true;
    });
  }
  ReleaseBytes(request, actions);
  actions.failures.push_back({keep, status});
}

// ---- Replicas ----

void Dispatcher::AddRunner(BatchRunner* runner) {
  const absl::Time now = clock_.Now();
  {
    MutexLock lock(mutex_);
    idle_.push_back(runner);
    CountBusy(now);
  }
  Pump();
}

bool Dispatcher::RemoveIdleRunner(BatchRunner* runner) {
  const absl::Time now = clock_.Now();
  MutexLock lock(mutex_);
  if (std::erase(idle_, runner) == 0) return false;
  CountBusy(now);
  return true;
}

void Dispatcher::ExpectCost(const RowShape& shape, ReplicaKind kind, int64_t rows,
                            absl::Duration took) {
  MutexLock lock(mutex_);
  costs_.Expect(shape, kind, rows, took);
}

void Dispatcher::Started(Batch& batch, BatchRunner* runner, absl::Time now) {
  absl::Time oldest = absl::InfiniteFuture();  // Of those who may be shed.
  for (const Batch::Member& member : batch.members()) {
    if (member.vacated) continue;
    PendingRequest& request = *member.request;
    if (request.overflow == Overflow::kReject) oldest = std::min(oldest, request.arrival);
    request.started = true;
    RemovePlace(request);
  }
  if (oldest != absl::InfiniteFuture()) overload_.BatchTaken(now, now - oldest);
  const CostModel* const cost = costs_.Find(batch.shape(), runner->kind());
  busy_.push_back(
      {runner, cost == nullptr ? absl::InfinitePast() : now + cost->Predict(batch.rows())});
  CountBusy(now);
}

void Dispatcher::Ended(const BatchRunner* runner, absl::Time now) {
  std::erase_if(busy_, [runner](const Busy& busy) { return busy.runner == runner; });
  CountBusy(now);
}

void Dispatcher::ExpectReturns(const Batch& batch, absl::Time now) {
  if (options_.policy.hold == Hold::kNone) return;
  for (const Batch::Member& member : batch.members()) {
    const bool last = member.first_row + member.rows == member.request->rows();
    if (last) returns_.Answered(member.request->flow().id(), now);
  }
}

void Dispatcher::CountBusy(absl::Time now) {
  const size_t all = idle_.size() + busy_.size();
  utilisation_.Set(now,
                   all == 0 ? 0 : static_cast<double>(busy_.size()) / static_cast<double>(all));
}

void Dispatcher::Finish(BatchRunner* runner, std::unique_ptr<Batch> batch,
                        const absl::StatusOr<std::vector<OutputView>>& outputs,
                        absl::Duration execute, int replica) {
  if (runner->lease_cores() > 0) leases_.Release(runner->lease_cores());
  const absl::Time now = clock_.Now();
  Actions starts;
  {
    MutexLock lock(mutex_);
    idle_.push_back(runner);
    Ended(runner, now);
    if (outputs.ok()) {
      costs_.Observe(batch->shape(), runner->kind(), batch->rows(), execute, now);
      ExpectReturns(*batch, now);
    }
    CollectStart(now, starts);
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
  const absl::Time now = clock_.Now();
  Actions actions;
  {
    MutexLock lock(mutex_);
    Ended(runner, now);
    Retry again;
    for (const Batch::Member& member : batch->members()) {
      if (++member.request->deaths < options_.max_deaths && stopped_.ok()) {
        again.push_back(member);
        continue;
      }
      ReleaseBytes(*member.request, actions);
      actions.failures.push_back(
          {member.request, stopped_.ok() ? absl::InternalError(absl::StrCat(
                                               "model '", signature_->model_name(),
                                               "': the replica that ran this "
                                               "request died, and so did those that ran it again: ",
                                               member.request->deaths, " in all"))
                                         : stopped_});
    }
    if (!again.empty()) RunAgain(std::move(again), true, now);
    free_buffers_.push_back(batch->buffer());
    Collect(now, actions);
  }
  Perform(std::move(actions));
}

void Dispatcher::RunAgain(Retry members, bool first, absl::Time now) {
  for (const Batch::Member& member : members) {
    PendingRequest& request = *member.request;
    // One that is in the queue, too, expires there.
    if (!WaitingRoom::Holds(request)) request.expiry = ExpiryOf(request, now);
    staged_expiry_ = std::min(staged_expiry_, request.expiry);
    AddPlace(member.request);
  }
  if (first) {
    retries_.push_front(std::move(members));
  } else {
    retries_.push_back(std::move(members));
  }
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
  Actions freed;
  {
    MutexLock lock(mutex_);
    free_buffers_.push_back(batch.buffer());
    for (auto& [request, answer] : answers) ReleaseBytes(*request, freed);
  }
  for (auto& [request, answer] : answers) Send(*request, std::move(answer), now);
  Perform(std::move(freed));
}

void Dispatcher::Isolate(const Batch& batch, const absl::Status& status) {
  const absl::Time now = clock_.Now();
  const std::vector<Batch::Member>& members = batch.members();
  Actions actions;
  {
    MutexLock lock(mutex_);
    free_buffers_.push_back(batch.buffer());
    if (members.size() > 1 && stopped_.ok()) {
      const auto middle = members.begin() + static_cast<std::ptrdiff_t>(members.size() / 2);
      RunAgain(Retry(members.begin(), middle), false, now);
      RunAgain(Retry(middle, members.end()), false, now);
      return;
    }
    for (const Batch::Member& member : members) {
      ReleaseBytes(*member.request, actions);
      // Of several, nobody will find out any more whose error it is.
      actions.failures.push_back({member.request, members.size() > 1 ? stopped_ : status});
    }
  }
  Perform(std::move(actions));
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

void Dispatcher::Fail(const Failure& failure) {
  if (auto answer = failure.request->Fail(*signature_, failure.status)) {
    if (failure.retry_after != absl::InfiniteDuration()) {
      answer->response.retry_after = failure.retry_after;
    }
    Send(*failure.request, *std::move(answer), clock_.Now());
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
    if (actions.wake_other_models) leases_.WakeFirst();
    if (actions.freed_bytes > 0) options_.memory->GiveBack(actions.freed_bytes);
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
  absl::Time end = clock_.Now();
  for (const Fill& fill : fills) {
    const absl::Time begin = end;
    absl::Status status =
        fill.batch->Fill(*fill.request, fill.first_row, fill.rows, fill.batch_row);
    end = clock_.Now();
    outcomes.push_back({std::move(status), end - begin});
  }
  MutexLock lock(mutex_);
  for (size_t i = 0; i < fills.size(); ++i) {
    fills[i].batch->Filled(fills[i].member, outcomes[i].took);
    if (!outcomes[i].status.ok() && !fills[i].batch->members()[fills[i].member].vacated) {
      Drop(*fills[i].request, outcomes[i].status, next);
    }
  }
  Collect(end, next);
  return next;
}

void Dispatcher::Collect(absl::Time now, Actions& actions) {
  CollectExpired(now, actions);
  FreeEmptyBatches();
  CollectRetries(actions);
  do {  // The start of a staged batch leaves its place to the next.
    CollectStaging(now, actions);
  } while (CollectStart(now, actions));
  WakeAt(std::min(room_.next_expiry(), staged_expiry_));
}

void Dispatcher::CollectExpired(absl::Time now, Actions& actions) {
  while (PendingRequest* const request = room_.Expired(now)) {
    if (auto refusal = WhyExpired(*request, now)) {
      Drop(*request, *std::move(refusal), actions);
      continue;
    }
    if (IsToBeDelayed(*request, now)) room_.Delay(*request);
    room_.SetExpiry(*request, ExpiryOf(*request, now));
  }
  if (staged_expiry_ > now) return;
  staged_expiry_ = absl::InfiniteFuture();
  absl::InlinedVector<std::pair<PendingRequest*, Refusal>, 8> expired;
  const auto look_at = [&](PendingRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (WaitingRoom::Holds(request)) return;  // With other rows, and seen there.
    if (request.expiry <= now) {
      if (auto refusal = WhyExpired(request, now)) {
        expired.emplace_back(&request, *std::move(refusal));
        return;
      }
      if (IsToBeDelayed(request, now)) request.tier = FairQueue::TierOf(request.level, true);
      request.expiry = ExpiryOf(request, now);
    }
    staged_expiry_ = std::min(staged_expiry_, request.expiry);
  };
  for (const auto& batch : staged_) {
    for (const Batch::Member& member : batch->members()) {
      if (!member.vacated) look_at(*member.request);
    }
  }
  for (const Retry& retry : retries_) {
    for (const Batch::Member& member : retry) look_at(*member.request);
  }
  for (auto& [request, refusal] : expired) {  // Some may have been there with several parts.
    if (request->places > 0) Drop(*request, std::move(refusal), actions);
  }
}

void Dispatcher::CollectRetries(Actions& actions) {
  while (!retries_.empty() && !free_buffers_.empty()) {
    Retry retry = std::move(retries_.front());
    retries_.pop_front();
    std::erase_if(retry, [&](const Batch::Member& member) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      const bool cancelled = member.request->caller().cancelled();
      if (!cancelled && !member.request->answered()) return false;
      RemovePlace(*member.request);
      ReleaseBytes(*member.request, actions);
      if (cancelled) actions.failures.push_back({member.request, Cancelled()});
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

// ---- Staging ----

void Dispatcher::CollectStaging(absl::Time now, Actions& actions) {
  for (;;) {
    LetInParked(now, actions);
    if (room_.queue().empty()) return;
    const auto [request, batch] = NextToStage(now, actions);
    if (request == nullptr) return;
    const std::shared_ptr<PendingRequest> keep = request->self;
    const int64_t first_row = request->rows_claimed;
    const int64_t rows = batch->PieceOf(request->rows() - first_row);
    AddPlace(keep);
    Join(batch, {.request = keep, .first_row = first_row, .rows = rows}, actions);
    batch->tier = std::min(batch->tier, request->tier);
    room_.Claim(*request, rows, batch->row_cost * static_cast<double>(rows));
    if (!WaitingRoom::Holds(*request)) RemovePlace(*request);
  }
}

Dispatcher::Staging Dispatcher::NextToStage(absl::Time now, Actions& actions) {
  FairQueue& queue = room_.queue();
  absl::InlinedVector<const ShapeGroup*, 4> passed_over;
  PendingRequest* out_of_turn = NextOutOfTurn(now);
  for (;;) {
    const bool may_open = !free_buffers_.empty();
    PendingRequest* request = std::exchange(out_of_turn, nullptr);
    Batch* batch = nullptr;
    if (request != nullptr) {
      batch = StagedBatch(*request->row_shape());
      const bool fits =
          batch == nullptr
              ? may_open
              : batch->HasRoom(batch->PieceOf(request->rows() - request->rows_claimed));
      if (!fits) continue;
      request->out_of_turn = true;
    } else {
      ShapeGroup* const group =
          queue.NextGroup([&](const ShapeGroup& candidate) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
            const bool passed =
                std::find(passed_over.begin(), passed_over.end(), &candidate) != passed_over.end();
            if (passed) return false;
            return may_open || StagedBatch(*candidate.shape) != nullptr;
          });
      if (group == nullptr) return {};
      batch = StagedBatch(*group->shape);
      const int64_t capacity = batch == nullptr ? most_rows() : batch->capacity();
      const int64_t room = batch == nullptr ? capacity : batch->Room();
      const double row_cost =
          batch == nullptr ? costs_.RowCost(*group->shape, most_rows()) : batch->row_cost;
      request = queue.Next(*group, room, capacity, row_cost);
      if (request == nullptr) {
        if (batch == nullptr || !YieldTo(group->tier(), *batch)) passed_over.push_back(group);
        continue;
      }
    }
    if (request->rows_claimed > 0 && request->answered()) {  // An earlier part has failed.
      const std::shared_ptr<PendingRequest> keep = request->self;
      room_.Remove(*request);
      RemovePlace(*request);
      continue;
    }
    if (request->expiry <= now || ShedTime(*request) <= now) {
      if (auto refusal = WhyExpired(*request, now)) {
        Drop(*request, *std::move(refusal), actions);
        continue;
      }
    }
    if (batch == nullptr) {
      const absl::StatusOr<Batch*> opened = NewBatchFor(*request, now);
      if (!opened.ok()) {
        Drop(*request, opened.status(), actions);
        continue;
      }
      batch = *opened;
    }
    return {request, batch};
  }
}

PendingRequest* Dispatcher::NextOutOfTurn(absl::Time now) {
  const FairQueue& queue = room_.queue();
  if (PendingRequest* const urgent = room_.MostUrgent()) {
    // It misses its deadline unless it is in the batch that starts when the next replica is free.
    // What it takes out of turn is its flow's debt, and too deep in debt it waits like others.
    const absl::Duration one_batch = costs_.Predict(*urgent->row_shape(), most_rows());
    const absl::Duration next_but_one = FirstFree(now) + one_batch;
    if (urgent->deadline != absl::InfiniteFuture() && urgent->expiry - now < next_but_one &&
        FairQueue::LevelOf(urgent->tier) == queue.highest_level() &&
        urgent->line->credit > -absl::ToDoubleNanoseconds(one_batch)) {
      return &FairQueue::FirstInLine(*urgent);
    }
  }
  if (options_.starvation_guard == absl::InfiniteDuration()) return nullptr;
  PendingRequest* const overdue = queue.Overdue(now - options_.starvation_guard);
  return overdue == nullptr ? nullptr : &FairQueue::FirstInLine(*overdue);
}

Batch* Dispatcher::StagedBatch(const RowShape& shape) const {
  for (const auto& batch : staged_) {
    if (!batch->retry && batch->shape() == shape) return batch.get();
  }
  return nullptr;
}

absl::StatusOr<Batch*> Dispatcher::NewBatchFor(const PendingRequest& request, absl::Time now) {
  int64_t most = most_rows();
  if (idle_.size() > 1 && outputs_are_fixed_) {
    const CostModel* const cost = costs_.Find(*request.row_shape(), (*NextIdle())->kind());
    const auto idle = static_cast<int>(idle_.size());
    if (cost != nullptr) {
      most = BatchPolicy::RowsPerReplica(room_.queue().rows(), most, idle,
                                         utilisation_.ValueAt(now), *cost);
    }
  }
  BatchBuffer* const buffer = free_buffers_.back();
  MILLRACE_ASSIGN_OR_RETURN(const int64_t capacity, buffer->Open(*request.row_shape(), most));
  free_buffers_.pop_back();
  staged_.push_back(std::make_unique<Batch>(buffer, request.row_shape(), capacity));
  Batch* const batch = staged_.back().get();
  batch->row_cost = costs_.RowCost(*request.row_shape(), most_rows());
  batch->turn = FairQueue::ServedOf(request);
  return batch;
}

bool Dispatcher::YieldTo(int tier, Batch& batch) {
  const std::vector<Batch::Member>& members = batch.members();
  size_t last = members.size();
  for (size_t i = 0; i < members.size(); ++i) {
    const Batch::Member& member = members[i];
    const PendingRequest& request = *member.request;
    if (request.tier <= tier || request.out_of_turn || member.filling) continue;
    if (last != members.size() && request.tier < members[last].request->tier) continue;
    if (CanBePutBack(batch, i)) last = i;
  }
  if (last == members.size()) return false;
  PutBack(batch, last);
  return true;
}

void Dispatcher::PutBack(Batch& batch, size_t member) {
  const std::shared_ptr<PendingRequest> request = batch.members()[member].request;
  const int64_t rows = batch.members()[member].rows;
  batch.Vacate(member);
  request->rows_claimed -= rows;
  request->out_of_turn = false;
  room_.PutBack(*request, batch.row_cost * static_cast<double>(rows));
}

void Dispatcher::Join(Batch* batch, const Batch::Member& rows, Actions& actions) {
  const size_t member = batch->Claim(rows.request, rows.first_row, rows.rows);
  staged_expiry_ = std::min(staged_expiry_, rows.request->expiry);
  actions.fills.push_back(
      {batch, member, rows.request, rows.first_row, rows.rows, batch->members()[member].batch_row});
}

bool Dispatcher::FreeEmptyBatches() {
  const size_t before = staged_.size();
  for (auto batch = staged_.begin(); batch != staged_.end();) {
    if ((*batch)->rows() > 0 || (*batch)->filling() > 0) {
      ++batch;
    } else {
      free_buffers_.push_back((*batch)->buffer());
      batch = staged_.erase(batch);
    }
  }
  return staged_.size() < before;
}

// ---- Starting ----

bool Dispatcher::CollectStart(absl::Time now, Actions& actions) {
  if (FreeEmptyBatches()) return true;
  const auto next = idle_.empty() ? staged_.end() : NextToStart(now);
  if (next != staged_.end()) {
    const auto runner = NextIdle();
    if (FitDeadlines(**next, (*runner)->kind(), now, actions) > 0) {
      return true;  // Others take the places of those who were given up.
    }
    if (!AcquireLease(**runner, actions)) return false;
    Started(**next, *runner, now);
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

Dispatcher::Staged::iterator Dispatcher::NextToStart(absl::Time now) {
  auto next = staged_.end();
  for (auto candidate = staged_.begin(); candidate != staged_.end(); ++candidate) {
    const Batch& batch = **candidate;
    if (batch.filling() > 0) continue;  // Whoever fills it last comes by again.
    // Nobody overtakes those in the queue, who found no place.
    const bool closed = batch.closed() || !room_.queue().empty();
    const absl::Time go_at =
        options_.policy.GoAt({.rows = batch.rows(),
                              .closed = closed,
                              .oldest_arrival = batch.oldest_arrival(),
                              .hold_until = closed ? now : HoldUntil(batch, now)});
    if (go_at > now && LatestStart(batch) > now) {
      WakeAt(std::min(go_at, LatestStart(batch)));
    } else if (next == staged_.end() || GoesBefore(batch, **next)) {
      next = candidate;
    }
  }
  return next;
}

absl::Time Dispatcher::HoldUntil(const Batch& batch, absl::Time now) const {
  if (options_.policy.hold == Hold::kNone) return absl::InfinitePast();
  const CostModel* const cost = costs_.Find(batch.shape(), idle_.back()->kind());
  if (cost == nullptr) return absl::InfinitePast();
  // Where others are idle too, each gets its share of those who return, not one all of them.
  const size_t sharing = idle_.size() > 1 ? idle_.size() + busy_.size() : 1;
  return returns_.HoldUntil(now, batch.rows(), batch.capacity(), static_cast<int>(sharing),
                            cost->setup());
}

absl::Time Dispatcher::LatestStart(const Batch& batch) const {
  const absl::Duration runs = costs_.Predict(batch.shape(), batch.capacity());
  absl::Time latest = absl::InfiniteFuture();
  for (const Batch::Member& member : batch.members()) {
    if (member.vacated) continue;
    latest = std::min({latest, member.request->expiry, member.request->deadline - runs});
  }
  return latest - kMargin;
}

int Dispatcher::FitDeadlines(Batch& batch, ReplicaKind kind, absl::Time now, Actions& actions) {
  const CostModel* const cost = costs_.Find(batch.shape(), kind);
  if (batch.retry || cost == nullptr || !costs_.IsFresh(batch.shape(), now)) return 0;
  const bool others_wait = !room_.queue().empty();
  int given_up = 0;
  for (;;) {
    const std::vector<Batch::Member>& members = batch.members();
    const Batch::Member* urgent = nullptr;
    for (const Batch::Member& member : members) {
      if (member.vacated || member.request->deadline == absl::InfiniteFuture()) continue;
      if (urgent == nullptr || member.request->deadline < urgent->request->deadline) {
        urgent = &member;
      }
    }
    if (urgent == nullptr) return given_up;
    const absl::Duration slack = urgent->request->deadline - now;
    const bool alone = cost->Predict(urgent->rows) <= slack;
    const BatchPolicy::Cut cut = alone
                                     ? BatchPolicy::CutFor(slack, batch.rows(), others_wait, *cost)
                                     : BatchPolicy::Cut{.rows = 0, .drop_urgent = true};
    if (cut.drop_urgent) {
      PendingRequest& request = *urgent->request;
      Drop(request, TooLate(request, now), actions);
      ++given_up;
      continue;
    }
    // Those that have most time left give way.
    while (batch.rows() > cut.rows) {
      size_t patient = members.size();
      for (size_t i = 0; i < members.size(); ++i) {
        const Batch::Member& member = members[i];
        if (member.request->deadline <= urgent->request->deadline) continue;
        if (!CanBePutBack(batch, i)) continue;
        if (patient == members.size() ||
            member.request->deadline >= members[patient].request->deadline) {
          patient = i;
        }
      }
      if (patient == members.size()) return given_up;
      PutBack(batch, patient);
    }
    return given_up;
  }
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
