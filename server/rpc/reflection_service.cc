// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/reflection_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/async_stream.h"
#include "server/rpc/completion_tag.h"
#include "server/rpc/descriptor_lookup.h"

namespace millrace {
namespace {

grpc::Status ShuttingDown() {
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down");
}

}  // namespace

// One call, from its accept to its last tag, which deletes it: read a question, write the answer,
// and so on. Its state is guarded by the service's mutex; operations are chosen under it and
// started after it was released. Of the ways in which a call can end, each makes the operation that
// is on its way fail, so no other tag needs to tell of it.
class ReflectionService::Stream {
 public:
  virtual ~Stream() = default;

  // True where the call is to be finished from outside, now: then call StartFinish(). Otherwise it
  // looks at shut_down_ itself, after its answer. REQUIRES: the caller holds the service's mutex.
  bool Interrupt() {
    service_.mutex_.AssertHeld();
    if (state_ != State::kReading) return false;
    state_ = State::kFinishing;
    ++tags_;
    return true;
  }

  virtual void StartFinish(const grpc::Status& status) = 0;

 protected:
  Stream(ReflectionService& service, CallGate::Pass pass)
      : service_(service), pass_(std::move(pass)) {}

  virtual void AcceptNext() = 0;
  virtual void StartRead() = 0;
  // Answers the question that was read.
  virtual void StartAnswer() = 0;

  ReflectionService& service() { return service_; }

  // The tags to start operations with.
  CompletionTag* on_accepted() { return &on_accepted_; }
  CompletionTag* on_read() { return &on_read_; }
  CompletionTag* on_answered() { return &on_answered_; }
  CompletionTag* on_finished() { return &on_finished_; }

 private:
  enum class State { kReading, kAnswering, kFinishing };

  void OnAccepted(bool ok) {
    if (!ok) {  // The server is shutting down.
      delete this;
      return;
    }
    AcceptNext();
    grpc::Status refusal;
    {
      MutexLock lock(service_.mutex_);
      refusal = Refusal();
      service_.streams_.insert(this);
      state_ = refusal.ok() ? State::kReading : State::kFinishing;
    }
    if (refusal.ok()) {
      StartRead();
    } else {
      StartFinish(refusal);
    }
  }

  void OnRead(bool ok) {
    bool interrupted = false;
    {
      MutexLock lock(service_.mutex_);
      interrupted = state_ == State::kFinishing;
      if (!interrupted) state_ = ok ? State::kAnswering : State::kFinishing;
    }
    if (interrupted) {
      Release();
    } else if (ok) {
      StartAnswer();
    } else {
      StartFinish(grpc::Status::OK);  // The client asks no more.
    }
  }

  void OnAnswered(bool ok) {
    bool go_on = false;
    {
      MutexLock lock(service_.mutex_);
      go_on = ok && !service_.shut_down_;
      state_ = go_on ? State::kReading : State::kFinishing;
    }
    if (go_on) {
      StartRead();
    } else {
      StartFinish(ShuttingDown());
    }
  }

  void OnFinished(bool /*ok*/) { Release(); }

  grpc::Status Refusal() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(service_.mutex_) {
    if (service_.shut_down_) return ShuttingDown();
    if (service_.streams_.size() < service_.max_streams_) return grpc::Status::OK;
    return grpc::Status(
        grpc::StatusCode::RESOURCE_EXHAUSTED,
        absl::StrCat(service_.max_streams_,
                     " reflection streams are open, which is the limit; close one"));
  }

  // A tag has come back for good.
  void Release() {
    {
      MutexLock lock(service_.mutex_);
      if (--tags_ > 0) return;
      service_.streams_.erase(this);
    }
    delete this;
  }

  ReflectionService& service_;
  const CallGate::Pass pass_;
  MethodTag<Stream, &Stream::OnAccepted> on_accepted_{this};
  MethodTag<Stream, &Stream::OnRead> on_read_{this};
  MethodTag<Stream, &Stream::OnAnswered> on_answered_{this};
  MethodTag<Stream, &Stream::OnFinished> on_finished_{this};
  State state_ ABSL_GUARDED_BY(service_.mutex_) = State::kReading;
  int tags_ ABSL_GUARDED_BY(service_.mutex_) = 1;  // Out, or being handled.
};

template <typename Service, typename Request, typename Response>
class ReflectionService::TypedStream final : public Stream {
 public:
  // Waits for a call on `queue`.
  static void Accept(ReflectionService& owner, Service& service,
                     grpc::ServerCompletionQueue* queue) {
    CallGate::Pass pass = owner.gate_.TryEnter();
    if (!pass) return;
    auto* const stream = new TypedStream(owner, service, queue, std::move(pass));
    service.RequestServerReflectionInfo(&stream->context_, &stream->stream_, queue, queue,
                                        stream->on_accepted());
  }

  void StartFinish(const grpc::Status& status) override { stream_.Finish(status, on_finished()); }

 private:
  TypedStream(ReflectionService& owner, Service& its_service, grpc::ServerCompletionQueue* queue,
              CallGate::Pass pass)
      : Stream(owner, std::move(pass)), service_(its_service), queue_(queue), stream_(&context_) {}

  void AcceptNext() override { Accept(service(), service_, queue_); }

  void StartRead() override { stream_.Read(&request_, on_read()); }

  void StartAnswer() override {
    const DescriptorLookup lookup(*google::protobuf::DescriptorPool::generated_pool());
    Response response;
    AnswerReflection(lookup, service().services_, request_, &response);
    stream_.Write(response, on_answered());
  }

  Service& service_;
  grpc::ServerCompletionQueue* const queue_;
  grpc::ServerContext context_;
  Request request_;
  grpc::ServerAsyncReaderWriter<Response, Request> stream_;
};

ReflectionService::ReflectionService(CallGate& gate, std::vector<std::string> services,
                                     size_t max_streams)
    : gate_(gate), services_(std::move(services)), max_streams_(max_streams) {}

void ReflectionService::Start(grpc::ServerCompletionQueue* queue) {
  namespace v1 = grpc::reflection::v1;
  namespace v1alpha = grpc::reflection::v1alpha;
  TypedStream<v1::ServerReflection::AsyncService, v1::ServerReflectionRequest,
              v1::ServerReflectionResponse>::Accept(*this, v1_, queue);
  TypedStream<v1alpha::ServerReflection::AsyncService, v1alpha::ServerReflectionRequest,
              v1alpha::ServerReflectionResponse>::Accept(*this, v1alpha_, queue);
}

void ReflectionService::Shutdown() {
  std::vector<Stream*> interrupted;
  {
    MutexLock lock(mutex_);
    shut_down_ = true;
    for (Stream* const stream : streams_) {
      if (stream->Interrupt()) interrupted.push_back(stream);
    }
  }
  for (Stream* const stream : interrupted) stream->StartFinish(ShuttingDown());
}

}  // namespace millrace
