// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/health_service.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/async_stream.h"
#include "server/rpc/completion_tag.h"

namespace millrace {
namespace {

constexpr size_t kMaxNameBytes = 512;  // A watch keeps the name.
constexpr char kLiveness[] = "liveness";
constexpr char kReadiness[] = "readiness";

}  // namespace

// One Watch call, from its accept to its last tag, which deletes it. Its state is guarded by the
// service's mutex; operations are chosen under it and started after it was released. One message is
// on its way at a time.
class HealthService::Watch {
 public:
  using Status = Serving::ServingStatus;

  // What is to be started for a watch; until its tag comes back, the watch lives.
  struct Operation {
    enum Kind { kNone, kWrite, kFinish };
    Kind kind = kNone;
    Status status = Serving::UNKNOWN;  // To be written.
  };

  // Waits for a call on `queue`.
  static void Accept(HealthService& service, grpc::ServerCompletionQueue* queue) {
    CallGate::Pass pass = service.gate_.TryEnter();
    if (!pass) return;
    auto* const watch = new Watch(service, queue, std::move(pass));
    watch->context_.AsyncNotifyWhenDone(static_cast<CompletionTag*>(&watch->on_done_));
    service.service_.RequestWatch(&watch->context_, &watch->request_, &watch->writer_, queue, queue,
                                  static_cast<CompletionTag*>(&watch->on_accepted_));
  }

  // Chooses what to do now; it must then be performed. REQUIRES: the caller holds the service's
  // mutex.
  Operation Next() {
    service_.mutex_.AssertHeld();
    if (busy_ || finished_ || done_) return {};
    const Status status = service_.StatusOf(request_.service());
    if (!told_ || status != told_status_) {
      busy_ = told_ = true;
      told_status_ = status;
      return {Operation::kWrite, status};
    }
    if (!service_.shut_down_) return {};
    busy_ = finished_ = true;
    return {Operation::kFinish};
  }

  // Starts `operation`. The watch may be gone when this returns.
  void Perform(const Operation& operation) {
    if (operation.kind == Operation::kFinish) {
      Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
    } else if (operation.kind == Operation::kWrite) {
      Serving response;
      response.set_status(operation.status);
      writer_.Write(response, static_cast<CompletionTag*>(&on_written_));
    }
  }

 private:
  Watch(HealthService& service, grpc::ServerCompletionQueue* queue, CallGate::Pass pass)
      : service_(service),
        queue_(queue),
        pass_(std::move(pass)),
        writer_(&context_),
        on_accepted_(this),
        on_written_(this),
        on_finished_(this),
        on_done_(this) {}

  void OnAccepted(bool ok) {
    if (!ok) {  // The server is shutting down, and the tag for the end never comes.
      delete this;
      return;
    }
    Accept(service_, queue_);
    grpc::Status refusal;
    Operation operation;
    {
      MutexLock lock(service_.mutex_);
      refusal = Refusal();
      if (refusal.ok()) {
        service_.watches_.insert(this);
        operation = Next();
      } else {
        busy_ = finished_ = true;
      }
    }
    if (refusal.ok()) {
      Perform(operation);
    } else {
      Finish(refusal);
    }
  }

  grpc::Status Refusal() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(service_.mutex_) {
    if (service_.shut_down_) {
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down");
    }
    if (request_.service().size() > kMaxNameBytes) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                          absl::StrCat("the service's name has ", request_.service().size(),
                                       " bytes; at most ", kMaxNameBytes, " are taken"));
    }
    if (service_.watches_.size() >= service_.max_watches_) {
      return grpc::Status(
          grpc::StatusCode::RESOURCE_EXHAUSTED,
          absl::StrCat(service_.max_watches_, " watches are open, which is the limit; use Check"));
    }
    return grpc::Status::OK;
  }

  void Finish(const grpc::Status& status) {
    writer_.Finish(status, static_cast<CompletionTag*>(&on_finished_));
  }

  // A write that failed is followed by the tag for the end.
  void OnWritten(bool ok) { OnReturned(ok); }
  void OnFinished(bool /*ok*/) { OnReturned(/*go_on=*/false); }

  void OnReturned(bool go_on) {
    Operation operation;
    bool last = false;
    {
      MutexLock lock(service_.mutex_);
      busy_ = false;
      last = done_;
      if (!last && go_on) operation = Next();
      if (last) service_.watches_.erase(this);
    }
    if (last) {
      delete this;
    } else {
      Perform(operation);
    }
  }

  // The call has ended, by the client or by Finish().
  void OnDone(bool /*ok*/) {
    {
      MutexLock lock(service_.mutex_);
      done_ = true;
      if (busy_) return;  // The tag that is out deletes.
      service_.watches_.erase(this);
    }
    delete this;
  }

  HealthService& service_;
  grpc::ServerCompletionQueue* const queue_;
  const CallGate::Pass pass_;
  grpc::ServerContext context_;
  grpc::health::v1::HealthCheckRequest request_;
  grpc::ServerAsyncWriter<Serving> writer_;
  MethodTag<Watch, &Watch::OnAccepted> on_accepted_;
  MethodTag<Watch, &Watch::OnWritten> on_written_;
  MethodTag<Watch, &Watch::OnFinished> on_finished_;
  MethodTag<Watch, &Watch::OnDone> on_done_;

  bool busy_ ABSL_GUARDED_BY(service_.mutex_) = false;  // A Write or Finish is on its way.
  bool finished_ ABSL_GUARDED_BY(service_.mutex_) = false;
  bool done_ ABSL_GUARDED_BY(service_.mutex_) = false;
  bool told_ ABSL_GUARDED_BY(service_.mutex_) = false;
  Status told_status_ ABSL_GUARDED_BY(service_.mutex_) = Serving::UNKNOWN;
};

HealthService::HealthService(CallGate& gate, size_t max_watches)
    : gate_(gate),
      max_watches_(max_watches),
      check_(gate, service_, &grpc::health::v1::Health::AsyncService::RequestCheck,
             [this](const grpc::health::v1::HealthCheckRequest& request, Serving* response) {
               return Check(request.service(), response);
             }) {}

void HealthService::Start(grpc::ServerCompletionQueue* queue) {
  check_.Start(queue);
  Watch::Accept(*this, queue);
}

void HealthService::SetStatus(const std::string& name, bool serving) {
  ChangeAndTell([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { serving_[name] = serving; });
}

void HealthService::Drain() {
  ChangeAndTell([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { draining_ = true; });
}

void HealthService::Shutdown() {
  ChangeAndTell([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { draining_ = shut_down_ = true; });
}

template <typename Change>
void HealthService::ChangeAndTell(Change change) {
  std::vector<std::pair<Watch*, Watch::Operation>> operations;
  {
    MutexLock lock(mutex_);
    change();
    for (Watch* const watch : watches_) {
      const Watch::Operation operation = watch->Next();
      if (operation.kind != Watch::Operation::kNone) operations.emplace_back(watch, operation);
    }
  }
  for (const auto& [watch, operation] : operations) watch->Perform(operation);
}

grpc::Status HealthService::Check(const std::string& name, Serving* response) const {
  MutexLock lock(mutex_);
  const Serving::ServingStatus status = StatusOf(name);
  if (status == Serving::SERVICE_UNKNOWN) {
    return grpc::Status(
        grpc::StatusCode::NOT_FOUND,
        absl::StrCat("unknown service '", name.substr(0, kMaxNameBytes),
                     "'; the whole server is '', others are 'liveness', 'readiness', "
                     "'inference.GRPCInferenceService' and the models' names"));
  }
  response->set_status(status);
  return grpc::Status::OK;
}

HealthService::Serving::ServingStatus HealthService::StatusOf(const std::string& name) const {
  if (name == kLiveness) return Serving::SERVING;
  const auto found = serving_.find(name == kReadiness ? "" : name);
  if (found == serving_.end()) return Serving::SERVICE_UNKNOWN;
  return found->second && !draining_ ? Serving::SERVING : Serving::NOT_SERVING;
}

}  // namespace millrace
