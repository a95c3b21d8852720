// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/infer_stream.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/open_streams.h"
#include "server/rpc/status_conversion.h"
#include "server/rpc/transport.h"

namespace millrace {
namespace {

constexpr char kRpc[] = "ModelStreamInfer";
constexpr char kTraceParent[] = "traceparent";

// From 0 up to 1, spread evenly over streams that begin one after the other, so that they don't all
// end at once.
double Spread() {
  static std::atomic<uint32_t> count{0};
  return (count.fetch_add(1, std::memory_order_relaxed) * 2654435769u) / 4294967296.0;
}

// Whether a request gives way to a newer one of its flow.
bool MayBeDropped(Overflow overflow) {
  return overflow == Overflow::kDropOldest || overflow == Overflow::kLatest;
}

// Whether `used` is `model`, and not one that lived at the same address before.
bool IsSame(const std::weak_ptr<ServedModel>& used, const std::shared_ptr<ServedModel>& model) {
  return !used.owner_before(model) && !model.owner_before(used);
}

}  // namespace

InferStream::InferStream(const InferContext& context, OpenStreams& open_streams,
                         grpc::ServerCompletionQueue* queue, CallGate::Pass pass)
    : context_(context),
      open_streams_(open_streams),
      queue_(queue),
      pass_(std::move(pass)),
      stream_(&server_context_),
      on_accepted_(this),
      on_read_(this),
      on_written_(this),
      on_finished_(this),
      on_done_(this),
      window_(context.limits.default_window, context.limits.max_bytes) {}

InferStream::~InferStream() {
  context_.metrics->AnswersDropped(static_cast<uint64_t>(decided_.load()));
  MutexLock lock(mutex_);
  context_.metrics->StreamHolds(-static_cast<int64_t>(window_.held_bytes()));
  for (size_t i = 0; i < window_.size(); ++i) {  // What nobody was left to answer.
    context_.metrics->RequestFinished(InferRpc::kModelStreamInfer);
  }
}

void InferStream::Accept(const InferContext& context, OpenStreams& open_streams,
                         grpc::ServerCompletionQueue* queue) {
  CallGate::Pass pass = context.gate->TryEnter();
  if (!pass) return;
  std::shared_ptr<InferStream> stream(
      new InferStream(context, open_streams, queue, std::move(pass)));
  stream->self_ = stream;
  stream->server_context_.AsyncNotifyWhenDone(static_cast<CompletionTag*>(&stream->on_done_));
  context.service->RequestModelStreamInfer(&stream->server_context_, &stream->stream_, queue, queue,
                                           static_cast<CompletionTag*>(&stream->on_accepted_));
}

// ---- Tags ----

void InferStream::OnAccepted(bool ok) {
  if (!ok) {  // The server shuts down; the done tag of a call that never began doesn't come.
    ReleaseTag();
    return ReleaseTag();
  }
  Accept(context_, open_streams_, queue_);
  context_.metrics->StreamOpened();
  const absl::StatusOr<StreamTerms> terms =
      ReadStreamTerms(server_context_.client_metadata(), context_.limits);
  absl::Status status = terms.status();
  Agree(terms.ok() ? *terms : StreamTerms());
  if (status.ok() && !open_streams_.Add(shared_from_this())) {
    status = absl::ResourceExhaustedError(
        absl::StrCat(open_streams_.limit(), " streams are open, as many as may be"));
  }
  if (status.ok() && context_.limits.connection_age != absl::InfiniteDuration()) {
    CallLater(LifeOfStream(context_.limits.connection_age, Spread()), &InferStream::OnAged);
  }
  Operations next;
  {
    MutexLock lock(mutex_);
    if (!status.ok()) {
      half_closed_ = true;
      early_end_ = status;
    }
    next = NextOperations();
  }
  Begin(std::move(next));
  ReleaseTag();
}

void InferStream::OnRead(bool ok) {
  grpc::ByteBuffer message;
  message.Swap(&message_);
  uint64_t place = 0;
  {
    MutexLock lock(mutex_);
    // A message that comes when the stream ends anyway is not counted as read: the trailer tells
    // the client how far it came.
    if (!ok || finishing_ || !early_end_.ok()) {
      half_closed_ = true;
    } else {
      ChangeWindow([&](StreamWindow& window) { place = window.Read(message.Length()); });
    }
    ok = !half_closed_;
  }
  if (ok) TakeRequest(place, message);
  Operations next;
  {
    MutexLock lock(mutex_);
    reading_ = false;  // Not before the request has its place in line, and is parked or not.
    next = NextOperations();
  }
  Begin(std::move(next));
  ReleaseTag();
}

void InferStream::OnWritten(bool ok) {
  Operations next;
  std::unique_ptr<TracedRequest> traced;
  std::optional<uint64_t> place;
  {
    MutexLock lock(mutex_);
    writing_ = false;
    place = std::exchange(writing_place_, std::nullopt);
    traced = std::move(writing_traced_);
    if (place) {
      ChangeWindow([&](StreamWindow& window) { window.Write(*place); });
      if (ok) ++answered_;
    }
    next = NextOperations();
  }
  if (place) {
    context_.metrics->RequestFinished(InferRpc::kModelStreamInfer);
    if (ok) context_.metrics->AnswerWritten();
  }
  if (traced != nullptr) EndTrace(std::move(traced), ok);
  Begin(std::move(next));
  ReleaseTag();
}

void InferStream::OnFinished(bool /*ok*/) { ReleaseTag(); }

void InferStream::OnDone(bool /*ok*/) {
  if (server_context_.IsCancelled()) Abandon();
  std::optional<Timer::Id> timer;
  {
    MutexLock lock(mutex_);
    timer = std::exchange(timer_, std::nullopt);
  }
  if (timer) context_.timer->Forget(*timer);
  open_streams_.Remove(this);
  context_.metrics->StreamClosed();
  ReleaseTag();
}

void InferStream::ReleaseTag() {
  if (owed_tags_.fetch_sub(1) > 1) return;
  const std::shared_ptr<InferStream> last = std::move(self_);  // The member goes with the stream.
}

// ---- Requests ----

void InferStream::Agree(const StreamTerms& terms) {
  const auto weak = weak_from_this();
  sequencer_ = ResponseSequencer::Create({.send =
                                              [weak](uint64_t place, Response&& response) {
                                                if (const auto alive = weak.lock())
                                                  alive->TakeAnswer(place, std::move(response));
                                              },
                                          .order = terms.order,
                                          .decided =
                                              [weak](uint64_t place, const Response& response) {
                                                if (const auto alive = weak.lock())
                                                  alive->OnDecided(place, response);
                                              }});
  caller_ = std::make_shared<Caller>(
      std::make_shared<Flow>(Flow::Options{.weight = terms.weight,
                                           .overflow = terms.overflow,
                                           .most_waiting = terms.window,
                                           .max_age = terms.max_age,
                                           .on_parked = [weak](int change) {
                                             if (const auto alive = weak.lock())
                                               alive->OnParked(change);
                                           }}));
  counts_ = context_.metrics->streams().Open(terms.name);
  name_ = terms.name;
  opened_ = context_.clock->Now();
  const auto parent = server_context_.client_metadata().find(kTraceParent);
  if (parent != server_context_.client_metadata().end()) {
    trace_parent_.assign(parent->second.data(), parent->second.size());
  }
  MutexLock lock(mutex_);
  window_ = StreamWindow(terms.window, context_.limits.max_bytes);
  ends_on_error_ = terms.ends_on_error;
  wants_notice_ = terms.wants_notice;
}

void InferStream::TakeRequest(uint64_t place, const grpc::ByteBuffer& message) {
  const absl::Time now = context_.clock->Now();
  context_.metrics->RequestReceived(InferRpc::kModelStreamInfer);
  Responder responder = sequencer_->Reserve();
  DecodedRequest decoded = DecodeInferRequest(message);
  Request& request = decoded.request;
  request.trace =
      context_.tracer->Begin(request.trace_parent.empty() ? trace_parent_ : request.trace_parent,
                             name_, [this] { return server_context_.peer(); });
  auto model = decoded.status.ok()
                   ? context_.repository->Find(request.model_name, request.model_version)
                   : absl::StatusOr<std::shared_ptr<ServedModel>>(decoded.status);
  if (decoded.status.ok() && !model.ok()) context_.metrics->UnknownModel();
  if (!model.ok()) {
    Response response = RefusalOf(request, model.status(), now, context_);
    response.parameters = std::move(request.echoes);
    return responder.Respond(std::move(response));
  }
  Remember(*model);
  if (MayBeDropped((*model)->OverflowOf(caller_->flow()))) {
    MutexLock lock(mutex_);
    window_.LetDrop(place);
  }
  ServedModel::Terms terms;
  terms.arrival = now;
  (*model)->Submit(std::move(request), std::move(responder), caller_, terms);
}

void InferStream::Remember(const std::shared_ptr<ServedModel>& model) {
  if (IsSame(last_model_, model)) return;
  last_model_ = model;
  MutexLock lock(mutex_);
  std::erase_if(models_, [&](const std::weak_ptr<ServedModel>& used) {
    return used.expired() || IsSame(used, model);
  });
  models_.push_back(model);
}

void InferStream::OnParked(int change) {
  Operations next;
  {
    MutexLock lock(mutex_);
    parked_ += change;
    next = NextOperations();
  }
  Begin(std::move(next));
}

// ---- Answers ----

void InferStream::OnDecided(uint64_t place, const Response& response) {
  context_.metrics->AnswerDecided();
  decided_.fetch_add(1, std::memory_order_relaxed);
  Operations next;
  {
    MutexLock lock(mutex_);
    if (gone_ || !early_end_.ok()) return;
    ChangeWindow([&](StreamWindow& window) { window.Decide(place, response.memory_size); });
    next = NextOperations();
  }
  Begin(std::move(next));
}

void InferStream::TakeAnswer(uint64_t place, Response&& response) {
  absl::Status status = response.status;
  CountLeaving(response);
  std::unique_ptr<TracedRequest> traced;
  if (response.trace != nullptr) traced = Trace(response);
  grpc::ByteBuffer message = EncodeStreamResponse(std::move(response));
  bool ends = false;
  Operations next;
  {
    MutexLock lock(mutex_);
    if (!gone_ && early_end_.ok()) {
      ends = ends_on_error_ && !status.ok();
      if (ends) {
        early_end_ = std::move(status);
      } else {
        outbox_.push_back({place, std::move(message), std::move(traced)});
      }
      next = NextOperations();
    }
  }
  if (traced != nullptr) EndTrace(std::move(traced), /*delivered=*/false);
  if (ends) DropWaiting();  // Before the Finish: who hears of the end finds nothing left.
  Begin(std::move(next));
}

std::unique_ptr<TracedRequest> InferStream::Trace(Response& response) const {
  if (response.trace->to_client) {
    response.parameters.push_back({kTraceParent, FormatTraceParent(response.trace->context)});
  }
  return std::make_unique<TracedRequest>(TracedRequest::Of(kRpc, response, context_.clock->Now()));
}

void InferStream::EndTrace(std::unique_ptr<TracedRequest> traced, bool delivered) const {
  traced->written = context_.clock->Now();
  traced->delivered = delivered;
  context_.tracer->End(std::move(*traced));
}

void InferStream::CountLeaving(const Response& response) {
  const Timings& timings = response.timings;
  const absl::Time now = context_.clock->Now();
  decided_.fetch_sub(1, std::memory_order_relaxed);
  left_.fetch_add(1, std::memory_order_relaxed);
  const bool lost = timings.answered == absl::InfinitePast();  // By the server.
  context_.metrics->AnswerLeft(lost ? absl::ZeroDuration() : now - timings.answered);
  if (response.status.ok()) return counts_->Served(now - timings.arrival);
  switch (response.status.code()) {
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      drops_.fetch_add(1, std::memory_order_relaxed);
      return counts_->Dropped();
    default:
      return counts_->Failed();
  }
}

StreamGlance InferStream::Look() const {
  StreamGlance glance = {.name = name_,
                         .open_for = context_.clock->Now() - opened_,
                         .answers = left_.load(std::memory_order_relaxed),
                         .drops = drops_.load(std::memory_order_relaxed)};
  MutexLock lock(mutex_);
  glance.held = window_.size();
  glance.window = window_.window();
  glance.held_bytes = window_.held_bytes();
  return glance;
}

void InferStream::Abandon() {
  std::deque<Outgoing> dropped;  // Freed after the lock.
  {
    MutexLock lock(mutex_);
    gone_ = true;
    dropped.swap(outbox_);
  }
  for (Outgoing& answer : dropped) {
    if (answer.traced != nullptr) EndTrace(std::move(answer.traced), /*delivered=*/false);
  }
  if (caller_ == nullptr) return;  // It was never accepted.
  DropWaiting();
}

void InferStream::DropWaiting() {
  // First: a request that brings its model after `models_` were taken is refused by that model.
  caller_->Cancel();
  sequencer_->Abandon();  // The models answer what they drop, perhaps within Cancel().
  std::vector<std::weak_ptr<ServedModel>> models;
  {
    MutexLock lock(mutex_);
    models.swap(models_);
  }
  for (const auto& used : models) {
    if (const auto model = used.lock()) model->Cancel(*caller_);
  }
}

// ---- The end ----

void InferStream::Drain() { StartDrain(/*aged=*/false, /*may_notify=*/true); }
void InferStream::DrainAtOnce() { StartDrain(/*aged=*/false, /*may_notify=*/false); }
void InferStream::OnAged() { StartDrain(/*aged=*/true, /*may_notify=*/true); }

void InferStream::StartDrain(bool aged, bool may_notify) {
  bool notified = false;
  Operations next;
  {
    MutexLock lock(mutex_);
    if (draining_) return;  // It is told already, and ends in time for either reason.
    draining_ = true;
    aged_ = aged;
    notified =
        wants_notice_ && may_notify && !half_closed_ && !finishing_ && !gone_ && early_end_.ok();
    if (notified) {
      outbox_.push_back({std::nullopt, EncodeDrainNotice()});
    } else {
      reads_no_more_ = true;
    }
    next = NextOperations();
  }
  if (notified) {
    CallLater(kNoticePeriod, &InferStream::OnNoticeOver);
  } else if (aged) {
    CallLater(context_.limits.age_grace, &InferStream::OnGraceOver);
  }
  Begin(std::move(next));
}

void InferStream::OnNoticeOver() {
  bool aged = false;
  Operations next;
  {
    MutexLock lock(mutex_);
    reads_no_more_ = true;
    aged = aged_;
    next = NextOperations();
  }
  if (aged) CallLater(context_.limits.age_grace, &InferStream::OnGraceOver);
  Begin(std::move(next));
}

void InferStream::OnGraceOver() {
  {
    MutexLock lock(mutex_);
    if (finishing_ || gone_ || !early_end_.ok()) return;
    early_end_ = absl::UnavailableError(absl::StrCat(
        EndOfAge(), ", and what it had asked was not answered within --max-connection-age-grace, ",
        absl::FormatDuration(context_.limits.age_grace),
        "; send what is unanswered over another connection"));
  }
  DropWaiting();  // Before the Finish: who hears of the end finds nothing left.
  Operations next;
  {
    MutexLock lock(mutex_);
    next = NextOperations();
  }
  Begin(std::move(next));
}

std::string InferStream::EndOfAge() const {
  return absl::StrCat("the stream has reached the age that connections may have, ",
                      absl::FormatDuration(context_.limits.connection_age),
                      " (--max-connection-age)");
}

void InferStream::CallLater(absl::Duration after, void (InferStream::*method)()) {
  const Timer::Id id =
      context_.timer->Schedule(context_.clock->Now() + after, [weak = weak_from_this(), method] {
        if (const auto alive = weak.lock()) (alive.get()->*method)();
      });
  std::optional<Timer::Id> before;
  {
    MutexLock lock(mutex_);
    before = std::exchange(timer_, id);
  }
  if (before) context_.timer->Forget(*before);
}

// ---- Operations ----

template <typename Change>
void InferStream::ChangeWindow(Change change) {
  const size_t before = window_.held_bytes();
  change(window_);
  context_.metrics->StreamHolds(static_cast<int64_t>(window_.held_bytes()) -
                                static_cast<int64_t>(before));
}

bool InferStream::MayRead() const {
  return !reading_ && !half_closed_ && !reads_no_more_ && !gone_ && early_end_.ok() &&
         parked_ <= 0 && window_.HasRoom();
}

bool InferStream::MayFinish() const {
  if (finishing_ || gone_ || writing_ || !outbox_.empty()) return false;
  if (!early_end_.ok()) return true;
  return window_.size() == 0 && (half_closed_ || reads_no_more_);
}

InferStream::Operations InferStream::NextOperations() {
  Operations next;
  if (!writing_ && !finishing_ && !gone_ && !outbox_.empty()) {
    writing_ = true;
    writing_place_ = outbox_.front().place;
    writing_traced_ = std::move(outbox_.front().traced);
    next.write = std::move(outbox_.front().message);
    outbox_.pop_front();
    if (!outbox_.empty()) next.write_options.set_buffer_hint();  // More follows at once.
    ++owed_tags_;
  }
  if (MayRead()) {
    next.read = reading_ = true;
    ++owed_tags_;
  }
  if (MayFinish()) {
    finishing_ = true;
    next.finish = early_end_;
    if (early_end_.ok() && !half_closed_) {
      next.finish = absl::UnavailableError(
          aged_ ? absl::StrCat(EndOfAge(), "; send what is unanswered over another connection")
                : "the server is shutting down; send what is unanswered to another one");
    }
    ++owed_tags_;
  }
  return next;
}

void InferStream::Begin(Operations operations) {
  if (operations.write) {
    stream_.Write(*operations.write, operations.write_options,
                  static_cast<CompletionTag*>(&on_written_));
  }
  if (operations.read) stream_.Read(&message_, static_cast<CompletionTag*>(&on_read_));
  if (operations.finish) StartFinish(*operations.finish);
}

void InferStream::StartFinish(const absl::Status& status) {
  {
    MutexLock lock(mutex_);
    if (!status.ok() || draining_) {
      server_context_.AddTrailingMetadata("millrace-answered", std::to_string(answered_));
    }
  }
  stream_.Finish(ToGrpc(status), static_cast<CompletionTag*>(&on_finished_));
}

}  // namespace millrace
