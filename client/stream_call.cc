// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/stream_call.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/wire.h"

namespace millrace {
inline namespace client {
namespace {

constexpr int kDefaultWindow = 32;  // the server's default
constexpr char kAnsweredTrailer[] = "millrace-answered";
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(50);
constexpr absl::Duration kMaxBackoff = absl::Seconds(1);

const char* NameOf(StreamOptions::Overflow overflow) {
  switch (overflow) {
    case StreamOptions::Overflow::kBlock:
      return "block";
    case StreamOptions::Overflow::kReject:
      return "reject";
    case StreamOptions::Overflow::kDropOldest:
      return "drop-oldest";
    case StreamOptions::Overflow::kLatest:
      return "latest";
  }
  return "";
}

// What the server is to know of the options.
Metadata TermsOf(const StreamOptions& options) {
  Metadata terms = {{"millrace-drain-notice", "true"}};
  if (options.window > 0) terms.emplace_back("millrace-window", absl::StrCat(options.window));
  if (options.weight != 0) terms.emplace_back("millrace-weight", absl::StrCat(options.weight));
  if (options.overflow) terms.emplace_back("millrace-overflow", NameOf(*options.overflow));
  if (options.order == StreamOptions::Order::kCompletion) {
    terms.emplace_back("millrace-order", "completion");
  }
  if (options.max_age != absl::InfiniteDuration()) {
    terms.emplace_back("millrace-max-age",
                       absl::StrCat(absl::ToInt64Microseconds(options.max_age)));
  }
  return terms;
}

absl::Status CancelledStatus() {
  return absl::CancelledError("the stream was cancelled by its owner");
}

}  // namespace

Stream::Call::Call(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<TokenFile> token,
                   StreamOptions options)
    : token_(std::move(token)),
      options_(std::move(options)),
      window_(options_.window > 0 ? options_.window : kDefaultWindow),
      deadline_(absl::Now() + options_.timeout),
      stub_(inference::GRPCInferenceService::NewStub(channel)),
      backoff_(kFirstBackoff),
      thread_([this] { Run(); }) {}

Stream::Call::~Call() {
  Cancel();
  thread_.join();
}

absl::Status Stream::Call::Send(Request request) {
  auto unanswered = std::make_unique<Unanswered>();
  unanswered->id = request.id;
  unanswered->message = ToMessage(std::move(request));
  {
    std::unique_lock lock(mutex_);
    const auto may_go_on = [this] {
      return window_used_ < window_ || end_.has_value() || cancelled_ || closing_;
    };
    if (std::this_thread::get_id() == thread_.get_id() && !may_go_on()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "Send() was called by the stream's own callback while all ", window_,
          " places of the window are taken; send from another thread, or ask for a larger window"));
    }
    changed_.wait(lock, may_go_on);
    if (end_.has_value() && !end_->ok()) return *end_;
    if (cancelled_) return CancelledStatus();
    if (closing_) return absl::FailedPreconditionError("Send() was called after Close()");
    unanswered->index = accepted_++;
    if (options_.order == StreamOptions::Order::kCompletion) {
      unanswered->message.set_id(absl::StrCat(unanswered->index));
    }
    unanswered_.push_back(std::move(unanswered));
    ++window_used_;
  }
  StartWrite();
  return absl::OkStatus();
}

std::optional<Answer> Stream::Call::Next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !answers_.empty() || ended_; });
  if (answers_.empty()) return std::nullopt;
  Answer answer = std::move(answers_.front());
  answers_.pop_front();
  --window_used_;
  changed_.notify_all();
  return answer;
}

absl::Status Stream::Call::Close() {
  if (std::this_thread::get_id() == thread_.get_id()) {
    return absl::FailedPreconditionError(
        "Close() was called by the stream's own callback, which it would wait for; call it from "
        "another thread");
  }
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  StartWrite();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ended_; });
  return *end_;
}

void Stream::Call::Cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (connection_ != nullptr) connection_->context.TryCancel();
  changed_.notify_all();
}

// --- the thread

void Stream::Call::Run() {
  absl::Status status = RunConnection();
  while (MayReconnect(status))
    status = WaitBeforeReconnecting() ? RunConnection() : CancelledStatus();
  End(std::move(status));
  completions_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (completions_.Next(&tag, &ok)) {
  }
}

// One gRPC call from start to end; OK when it ended in good order with every request answered.
absl::Status Stream::Call::RunConnection() {
  if (absl::Status status = CheckMetadata(options_.metadata); !status.ok()) return status;
  if (absl::Status status = StartConnection(); !status.ok()) return status;
  HandleCompletions();
  return EndOfConnection();
}

absl::Status Stream::Call::StartConnection() {
  auto connection = std::make_unique<Connection>();
  if (token_ != nullptr) {
    if (absl::Status status = token_->AddTo(connection->context); !status.ok()) return status;
  }
  AddMetadata(options_.metadata, connection->context);
  AddMetadata(TermsOf(options_), connection->context);
  connection->context.set_deadline(DeadlineAfter(deadline_ - absl::Now()));
  connection->stream = stub_->PrepareAsyncModelStreamInfer(&connection->context, &completions_);
  // gRPC connects only while a call waits for it: one that fails at once, again and again, would
  // find a new server only every five seconds.
  connection->context.set_wait_for_ready(drained_at_.has_value());
  std::lock_guard lock(mutex_);
  if (cancelled_) return CancelledStatus();
  sent_ = 0;
  connection_ = std::move(connection);
  return absl::OkStatus();
}

void Stream::Call::HandleCompletions() {
  Expect();
  connection_->stream->StartCall(reinterpret_cast<void*>(kStarted));
  void* tag = nullptr;
  bool ok = false;
  for (bool busy = true; busy;) {
    if (!NextCompletion(&tag, &ok)) {
      Abandon(absl::UnavailableError(
          absl::StrCat("the server shut down, and there was no other within ",
                       absl::FormatDuration(options_.reconnect_timeout))));
      continue;
    }
    HandleCompletion(static_cast<Event>(reinterpret_cast<intptr_t>(tag)), ok);
    std::lock_guard lock(mutex_);
    busy = --connection_->in_flight > 0;
  }
}

// False when the search for a server has taken too long.
bool Stream::Call::NextCompletion(void** tag, bool* ok) {
  const bool searching =
      drained_at_.has_value() && !connection_->connected && connection_->own_error.ok();
  if (!searching) return completions_.Next(tag, ok);
  const absl::Duration left = *drained_at_ + options_.reconnect_timeout - absl::Now();
  return completions_.AsyncNext(tag, ok, DeadlineAfter(left)) == grpc::CompletionQueue::GOT_EVENT;
}

void Stream::Call::Abandon(absl::Status error) {
  connection_->own_error = std::move(error);
  connection_->context.TryCancel();
}

void Stream::Call::HandleCompletion(Event event, bool ok) {
  switch (event) {
    case kStarted: {
      if (!ok) return StartFinish();
      connection_->connected = true;
      {
        std::lock_guard lock(mutex_);
        connection_->writable = true;
      }
      StartRead();
      return StartWrite();
    }
    case kRead: {
      if (!ok) return StartFinish();
      if (IsDrainNotice(connection_->received)) {
        {
          std::lock_guard lock(mutex_);
          connection_->noticed = true;
        }
        StartRead();
        return StartWrite();
      }
      if (connection_->own_error.ok()) {
        if (absl::Status status = TakeAnswer(); !status.ok()) Abandon(std::move(status));
      }
      return StartRead();
    }
    case kWritten: {
      {
        std::lock_guard lock(mutex_);
        connection_->writing = false;
        if (!ok) connection_->writable = false;  // the reads will tell why
      }
      return StartWrite();
    }
    case kFinished: {
      {
        std::lock_guard lock(mutex_);
        connection_->writable = false;
      }
      return connection_->context.TryCancel();  // a write that is still stuck comes back
    }
  }
}

void Stream::Call::Expect() {
  std::lock_guard lock(mutex_);
  ++connection_->in_flight;
}

void Stream::Call::StartRead() {
  Expect();
  connection_->stream->Read(&connection_->received, reinterpret_cast<void*>(kRead));
}

void Stream::Call::StartFinish() {
  if (std::exchange(connection_->finishing, true)) return;
  Expect();
  connection_->stream->Finish(&connection_->status, reinterpret_cast<void*>(kFinished));
}

// Writes the next request, or the end of them, if there is one and no write is in flight.
void Stream::Call::StartWrite() {
  const inference::ModelInferRequest* request = nullptr;
  Connection* connection = nullptr;
  {
    std::lock_guard lock(mutex_);
    connection = connection_.get();
    if (connection == nullptr || !connection->writable || connection->writing) return;
    if (sent_ < unanswered_.size() && !connection->noticed) {
      request = &unanswered_[sent_++]->message;
    } else if ((!closing_ && !connection->noticed) ||
               std::exchange(connection->writes_done, true)) {
      return;
    }
    // The connection, and the request, which can't be answered before it is written, stay until
    // this completes.
    connection->writing = true;
    ++connection->in_flight;
  }
  if (request != nullptr) {
    connection->stream->Write(*request, reinterpret_cast<void*>(kWritten));
  } else {
    connection->stream->WritesDone(reinterpret_cast<void*>(kWritten));
  }
}

// Where in `unanswered_` the request stands that was answered with this id.
absl::StatusOr<size_t> Stream::Call::FindAnswered(const std::string& id) const {
  if (sent_ == 0) {
    return absl::InternalError(absl::StrCat("the server answered ", answered_ + 1,
                                            " requests on this stream, but only ", answered_,
                                            " were sent"));
  }
  const bool in_order = options_.order == StreamOptions::Order::kRequest;
  for (size_t i = 0; i < (in_order ? 1 : sent_); ++i) {
    if (unanswered_[i]->message.id() == id) return i;
  }
  if (!in_order) {
    return absl::InternalError(absl::StrCat("the server answered request '", id,
                                            "' of this stream, which is not under way"));
  }
  return absl::InternalError(absl::StrCat("the server broke the order of the stream: request ",
                                          answered_, " has the id '", unanswered_.front()->id,
                                          "', its answer the id '", id, "'"));
}

// Delivers the message just read as the answer to the request that it is for. An error where there
// is none, and when the server found after a drain can't serve yet, for it loads its models.
absl::Status Stream::Call::TakeAnswer() {
  auto& message = connection_->received;
  if (MaySearch() && !connection_->answered && !message.error_message().empty()) {
    const absl::Status status = FromMessage(message).status();
    if (absl::IsUnavailable(status)) return status;
  }
  std::unique_ptr<Unanswered> request;
  {
    std::lock_guard lock(mutex_);
    const auto place = FindAnswered(message.infer_response().id());
    if (!place.ok()) return place.status();
    request = std::move(unanswered_[*place]);
    unanswered_.erase(unanswered_.begin() + static_cast<std::ptrdiff_t>(*place));
    ++answered_;
    --sent_;
  }
  message.mutable_infer_response()->set_id(request->id);
  connection_->answered = true;
  Answer answer{request->index, request->id, FromMessage(message)};
  if (!answer.response.ok()) answer.error_parameters = ParametersOf(message.infer_response());
  Deliver(std::move(answer));
  return absl::OkStatus();
}

void Stream::Call::Deliver(Answer answer) {
  if (options_.on_answer) options_.on_answer(std::move(answer));
  std::lock_guard lock(mutex_);
  if (options_.on_answer) {
    --window_used_;
  } else {
    answers_.push_back(std::move(answer));
  }
  changed_.notify_all();
}

absl::Status Stream::Call::EndOfConnection() {
  std::lock_guard lock(mutex_);
  const absl::Status status = ToAbslStatus(connection_->status);
  const bool complete = closing_ && unanswered_.empty();
  if (!connection_->own_error.ok()) return connection_->own_error;
  if (complete && (status.ok() || WasDrained())) return absl::OkStatus();
  if (cancelled_) return CancelledStatus();
  if (!status.ok()) return status;
  if (connection_->noticed && sent_ == 0) {
    return absl::UnavailableError("the server asked the stream to go on over another connection");
  }
  return absl::InternalError(absl::StrCat("the server ended the stream after ", answered_,
                                          " answers; ", unanswered_.size(),
                                          " requests were still unanswered"));
}

// --- moving to another server

bool Stream::Call::WasDrained() const {
  return connection_->noticed ||
         connection_->context.GetServerTrailingMetadata().count(kAnsweredTrailer) > 0;
}

// Whether the stream looks for a server: the last one said that it shuts down, or the search that
// began so has not found one yet.
bool Stream::Call::MayReconnect(const absl::Status& status) {
  // A server cancels the streams that reach it too late.
  const bool gone = absl::IsUnavailable(status) || absl::IsCancelled(status);
  if (!gone || connection_ == nullptr) return false;
  const absl::Time now = absl::Now();
  if (WasDrained()) {
    const bool served = connection_->answered || now - connection_->started > kMaxBackoff;
    if (served || !drained_at_.has_value()) {
      drained_at_ = now;
      backoff_ = kFirstBackoff;
    }
  } else if (connection_->answered) {
    drained_at_.reset();  // the search had succeeded; this server died
  }
  return MaySearch();
}

bool Stream::Call::MaySearch() const {
  return drained_at_.has_value() && absl::Now() - *drained_at_ < options_.reconnect_timeout;
}

// False when the stream was cancelled meanwhile.
bool Stream::Call::WaitBeforeReconnecting() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoMilliseconds(backoff_), [this] { return cancelled_; });
  backoff_ = std::min(backoff_ * 2, kMaxBackoff);
  return !cancelled_;
}

// Answers what is left with `status`, then ends the stream with it.
void Stream::Call::End(absl::Status status) {
  std::unique_lock lock(mutex_);
  end_ = status;  // from here Send() accepts nothing
  changed_.notify_all();
  while (!unanswered_.empty()) {
    Answer answer{unanswered_.front()->index, unanswered_.front()->id, status};
    unanswered_.pop_front();
    ++answered_;
    lock.unlock();
    Deliver(std::move(answer));
    lock.lock();
  }
  ended_ = true;
  changed_.notify_all();
}

}  // namespace client
}  // namespace millrace
