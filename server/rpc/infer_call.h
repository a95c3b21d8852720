// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "grpcpp/server_context.h"
#include "grpcpp/support/async_unary_call.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/base/mutex.h"
#include "server/dispatch/caller.h"
#include "server/inference/responder.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/completion_tag.h"
#include "server/rpc/infer_context.h"

namespace millrace {

// One ModelInfer call, from its accept to its last tag. Thread-safe: I/O threads complete its tags,
// any thread answers.
//
// Invariant: lives until every operation that it started has come back, and for as long as its
// Responder does.
class InferCall final : public ResponseSink, public std::enable_shared_from_this<InferCall> {
 public:
  // Waits for a call on `queue`; each call that comes makes place for the next. Does nothing once
  // the gate is closed.
  static void Accept(const InferContext& context, grpc::ServerCompletionQueue* queue);

  // ResponseSink: sends the answer.
  void Deliver(uint64_t place, Response&& response) override;

 private:
  InferCall(const InferContext& context, grpc::ServerCompletionQueue* queue, CallGate::Pass pass)
      : context_(context),
        queue_(queue),
        pass_(std::move(pass)),
        writer_(&server_context_),
        on_accepted_(this),
        on_finished_(this),
        on_done_(this) {}

  void OnAccepted(bool ok);
  void OnFinished(bool ok);
  void OnDone(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  void Submit() ABSL_LOCKS_EXCLUDED(mutex_);
  // Puts the load of the request's model beside its answer.
  void AddLoadReport() ABSL_LOCKS_EXCLUDED(mutex_);
  void ReleaseOne() ABSL_LOCKS_EXCLUDED(mutex_);

  const InferContext& context_;
  grpc::ServerCompletionQueue* const queue_;
  const CallGate::Pass pass_;
  grpc::ServerContext server_context_;
  grpc::ByteBuffer message_;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> writer_;
  std::shared_ptr<Caller> caller_;  // Null until the call is accepted.
  std::unique_ptr<TracedRequest>
      traced_;  // From the answer to its end; null: nobody wants to see it.

  MethodTag<InferCall, &InferCall::OnAccepted> on_accepted_;
  MethodTag<InferCall, &InferCall::OnFinished> on_finished_;
  MethodTag<InferCall, &InferCall::OnDone> on_done_;

  Mutex mutex_;
  std::weak_ptr<ServedModel> model_ ABSL_GUARDED_BY(mutex_);
  int owed_tags_ ABSL_GUARDED_BY(mutex_) = 2;  // Finish and done.
  std::shared_ptr<InferCall> self_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
