// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/infer_stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/open_streams.h"
#include "server/rpc/status_conversion.h"

namespace millrace {
namespace {

std::optional<std::string> MetadataOf(const grpc::ServerContext& context, const char* key) {
  const auto& metadata = context.client_metadata();
  const auto entry = metadata.find(key);
  if (entry == metadata.end()) return std::nullopt;
  return std::string(entry->second.data(), entry->second.size());
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
      on_done_(this) {}

InferStream::~InferStream() {
  MutexLock lock(mutex_);
  for (; in_window_ > 0; --in_window_) {  // What nobody was left to answer.
    context_.metrics->RequestFinished(InferRpc::kModelStreamInfer);
  }
}

void InferStream::Accept(const InferContext& context, OpenStreams& open_streams,
                         grpc::ServerCompletionQueue* queue) {
  CallGate::Pass pass = context.gate->TryEnter();
  if (!pass) return;
  std::shared_ptr<InferStream> stream(
      new InferStream(context, open_streams, queue, std::move(pass)));
  stream->sequencer_ =
      ResponseSequencer::Create([weak = std::weak_ptr<InferStream>(stream)](Response&& response) {
        if (const auto alive = weak.lock()) alive->TakeAnswer(std::move(response));
      });
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
  caller_ = std::make_shared<Caller>(std::make_shared<Flow>(Flow::Options{
      .overflow = Overflow::kBlock, .on_parked = [weak = weak_from_this()](int change) {
        if (const auto alive = weak.lock()) alive->OnParked(change);
      }}));
  absl::Status status = TakeMetadata();
  if (status.ok() && !open_streams_.Add(shared_from_this())) {
    status = absl::ResourceExhaustedError(
        absl::StrCat(open_streams_.limit(), " streams are open, as many as may be"));
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
  {
    MutexLock lock(mutex_);
    // A message that comes when the stream ends anyway is not counted as read: the trailer tells
    // the client how far it came.
    if (!ok || finishing_ || !early_end_.ok()) {
      half_closed_ = true;
    } else {
      ++in_window_;
    }
    ok = !half_closed_;
  }
  if (ok) TakeRequest(message);
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
  {
    MutexLock lock(mutex_);
    writing_ = false;
    --in_window_;
    if (ok) ++answered_;
    next = NextOperations();
  }
  context_.metrics->RequestFinished(InferRpc::kModelStreamInfer);
  Begin(std::move(next));
  ReleaseTag();
}

void InferStream::OnFinished(bool /*ok*/) { ReleaseTag(); }

void InferStream::OnDone(bool /*ok*/) {
  if (server_context_.IsCancelled()) Abandon();
  open_streams_.Remove(this);
  context_.metrics->StreamClosed();
  ReleaseTag();
}

void InferStream::ReleaseTag() {
  if (owed_tags_.fetch_sub(1) > 1) return;
  const std::shared_ptr<InferStream> last = std::move(self_);  // The member goes with the stream.
}

// ---- Requests ----

absl::Status InferStream::TakeMetadata() {
  int window = context_.limits.default_window;
  if (const auto text = MetadataOf(server_context_, "millrace-window")) {
    if (!absl::SimpleAtoi(*text, &window) || window < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata 'millrace-window' is '", text->substr(0, 64),
                       "', expected a number from 1 to ", context_.limits.max_window));
    }
  }
  for (const char* key :
       {"millrace-weight", "millrace-overflow", "millrace-order", "millrace-max-age"}) {
    if (MetadataOf(server_context_, key)) {
      return absl::UnimplementedError(
          absl::StrCat("metadata '", key, "' is not supported yet; leave it out"));
    }
  }
  MutexLock lock(mutex_);
  window_ = std::min(window, context_.limits.max_window);
  ends_on_error_ = MetadataOf(server_context_, "triton_grpc_error") == "true";
  return absl::OkStatus();
}

void InferStream::TakeRequest(const grpc::ByteBuffer& message) {
  const absl::Time now = context_.clock->Now();
  context_.metrics->RequestReceived(InferRpc::kModelStreamInfer);
  Responder responder = sequencer_->Reserve();
  DecodedRequest decoded = DecodeInferRequest(message);
  Request& request = decoded.request;
  auto model = decoded.status.ok()
                   ? context_.repository->Find(request.model_name, request.model_version)
                   : absl::StatusOr<std::shared_ptr<ServedModel>>(decoded.status);
  if (decoded.status.ok() && !model.ok()) context_.metrics->UnknownModel();
  if (!model.ok()) {
    Response response = Response::Error(model.status());
    response.id = std::move(request.id);
    response.model_name = std::move(request.model_name);
    response.model_version = std::move(request.model_version);
    return responder.Respond(std::move(response));
  }
  if (model->get() != last_model_) {
    last_model_ = model->get();
    MutexLock lock(mutex_);
    if (std::find(models_.begin(), models_.end(), *model) == models_.end()) {
      models_.push_back(*model);
    }
  }
  ServedModel::Terms terms;
  terms.arrival = now;
  (*model)->Submit(std::move(request), std::move(responder), caller_, terms);
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

void InferStream::TakeAnswer(Response&& response) {
  absl::Status status = response.status;
  grpc::ByteBuffer message = EncodeStreamResponse(std::move(response));
  bool ends;
  Operations next;
  {
    MutexLock lock(mutex_);
    if (gone_ || !early_end_.ok()) return;
    ends = ends_on_error_ && !status.ok();
    if (ends) {
      early_end_ = std::move(status);
    } else {
      outbox_.push_back(std::move(message));
    }
    next = NextOperations();
  }
  if (ends) {
    sequencer_->Abandon();
    caller_->Cancel();
  }
  Begin(std::move(next));
}

void InferStream::Abandon() {
  std::vector<std::shared_ptr<ServedModel>> models;
  std::deque<grpc::ByteBuffer> dropped;  // Freed after the lock.
  {
    MutexLock lock(mutex_);
    gone_ = true;
    dropped.swap(outbox_);
    models.swap(models_);
  }
  if (caller_ == nullptr) return;  // It was never accepted.
  caller_->Cancel();
  sequencer_->Abandon();
  for (const auto& model : models) model->Cancel(*caller_);
}

void InferStream::Drain() {
  Operations next;
  {
    MutexLock lock(mutex_);
    draining_ = true;
    next = NextOperations();
  }
  Begin(std::move(next));
}

// ---- Operations ----

bool InferStream::MayRead() const {
  return !reading_ && !half_closed_ && !draining_ && !gone_ && early_end_.ok() && parked_ <= 0 &&
         in_window_ < window_;
}

bool InferStream::MayFinish() const {
  if (finishing_ || gone_ || writing_ || !outbox_.empty()) return false;
  if (!early_end_.ok()) return true;
  return in_window_ == 0 && (half_closed_ || draining_);
}

InferStream::Operations InferStream::NextOperations() {
  Operations next;
  if (!writing_ && !finishing_ && !gone_ && !outbox_.empty()) {
    next.write = std::move(outbox_.front());
    outbox_.pop_front();
    if (!outbox_.empty()) next.write_options.set_buffer_hint();  // More follows at once.
    writing_ = true;
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
          "the server is shutting down; send what is unanswered to another one");
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
  if (!status.ok()) {
    MutexLock lock(mutex_);
    server_context_.AddTrailingMetadata("millrace-answered", std::to_string(answered_));
  }
  stream_.Finish(ToGrpc(status), static_cast<CompletionTag*>(&on_finished_));
}

}  // namespace millrace
