// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/infer_call.h"

#include <algorithm>
#include <utility>

#include "server/rpc/infer_codec.h"
#include "server/rpc/retry_info.h"
#include "server/rpc/status_conversion.h"

namespace millrace {
namespace {

// When a client whose request was refused should try again, where its answer doesn't say.
constexpr absl::Duration kRetryAfter = absl::Milliseconds(100);

constexpr char kRpc[] = "ModelInfer";
constexpr char kTraceParent[] = "traceparent";

// The trace context that came in the request, or with the call.
absl::string_view TraceParentOf(const grpc::ServerContext& context, const Request& request,
                                const RequestTracer& tracer) {
  // gRPC makes a map of the metadata once it is asked for it, which takes a while.
  if (!request.trace_parent.empty() || !tracer.on()) return request.trace_parent;
  const auto found = context.client_metadata().find(kTraceParent);
  if (found == context.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

// The call's deadline on the server's clock.
absl::Time DeadlineOf(const grpc::ServerContext& context, absl::Time now) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return now + (absl::FromChrono(deadline) - WallTime());
}

}  // namespace

void InferCall::Accept(const InferContext& context, grpc::ServerCompletionQueue* queue) {
  CallGate::Pass pass = context.gate->TryEnter();
  if (!pass) return;
  std::shared_ptr<InferCall> call(new InferCall(context, queue, std::move(pass)));
  {
    MutexLock lock(call->mutex_);
    call->self_ = call;
  }
  call->server_context_.AsyncNotifyWhenDone(static_cast<CompletionTag*>(&call->on_done_));
  context.service->RequestModelInfer(&call->server_context_, &call->message_, &call->writer_, queue,
                                     queue, static_cast<CompletionTag*>(&call->on_accepted_));
}

void InferCall::OnAccepted(bool ok) {
  if (!ok) {  // The server shuts down; the done tag of a call that never began doesn't come.
    ReleaseOne();
    return ReleaseOne();
  }
  Accept(context_, queue_);
  caller_ = std::make_shared<Caller>(context_.connection_flows->Of(server_context_.peer()));
  Submit();
}

void InferCall::Submit() {
  const absl::Time now = context_.clock->Now();
  context_.metrics->RequestReceived(InferRpc::kModelInfer);
  Responder responder(shared_from_this(), 0);
  DecodedRequest decoded = DecodeInferRequest(message_);
  message_.Clear();
  Request& request = decoded.request;
  request.trace = context_.tracer->Begin(TraceParentOf(server_context_, request, *context_.tracer),
                                         "", [this] { return server_context_.peer(); });
  const auto refuse = [&](const absl::Status& status) {
    responder.Respond(RefusalOf(request, status, now, context_));
  };
  if (!decoded.status.ok()) return refuse(decoded.status);
  auto model = context_.repository->Find(request.model_name, request.model_version);
  if (!model.ok()) {
    context_.metrics->UnknownModel();
    return refuse(model.status());
  }
  {
    MutexLock lock(mutex_);
    model_ = *model;
  }
  ServedModel::Terms terms;
  terms.arrival = now;
  terms.deadline = DeadlineOf(server_context_, now);
  (*model)->Submit(std::move(request), std::move(responder), caller_, terms);
}

void InferCall::Deliver(uint64_t /*place*/, Response&& response) {
  CompletionTag* const tag = &on_finished_;
  if (response.trace != nullptr) {
    traced_ =
        std::make_unique<TracedRequest>(TracedRequest::Of(kRpc, response, context_.clock->Now()));
    if (response.trace->to_client) {
      server_context_.AddTrailingMetadata(kTraceParent, FormatTraceParent(response.trace->context));
    }
  }
  if (context_.load_reports != nullptr) AddLoadReport();
  if (response.status.ok()) {
    return writer_.Finish(EncodeInferResponse(std::move(response)), grpc::Status::OK, tag);
  }
  grpc::Status status = ToGrpc(response.status);
  if (absl::IsResourceExhausted(response.status)) {
    const absl::Duration retry_after = response.retry_after.value_or(kRetryAfter);
    server_context_.AddTrailingMetadata("grpc-retry-pushback-ms", RetryPushback(retry_after));
    status = WithRetryInfo(status, retry_after);
  }
  writer_.FinishWithError(status, tag);
}

void InferCall::AddLoadReport() {
  std::weak_ptr<ServedModel> used;
  {
    MutexLock lock(mutex_);
    used = model_;
  }
  const std::shared_ptr<ServedModel> model = used.lock();
  if (model == nullptr) return;  // The request named none that is served.
  server_context_.AddTrailingMetadata(kLoadReportTrailer,
                                      *context_.load_reports->Of(model->shared_metrics()));
}

void InferCall::OnFinished(bool ok) {
  if (traced_ != nullptr) {
    traced_->written = context_.clock->Now();
    traced_->delivered = ok;
    context_.tracer->End(std::move(*traced_));
  }
  context_.metrics->RequestFinished(InferRpc::kModelInfer);
  ReleaseOne();
}

void InferCall::OnDone(bool /*ok*/) {
  if (server_context_.IsCancelled()) {
    caller_->Cancel();
    std::weak_ptr<ServedModel> used;
    {
      MutexLock lock(mutex_);
      used = model_;
    }
    if (const auto model = used.lock()) model->Cancel(*caller_);
  }
  ReleaseOne();
}

void InferCall::ReleaseOne() {
  std::shared_ptr<InferCall> last;  // Freed after the lock.
  MutexLock lock(mutex_);
  if (--owed_tags_ == 0) last = std::move(self_);
}

}  // namespace millrace
