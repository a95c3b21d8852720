// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <utility>

#include "grpcpp/completion_queue.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/async_unary_call.h"
#include "grpcpp/support/status.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/completion_tag.h"

namespace millrace {

// What the generated Request… methods of an asynchronous service look like.
template <typename Declaring, typename Request, typename Response>
using RequestMethod = void (Declaring::*)(grpc::ServerContext*, Request*,
                                          grpc::ServerAsyncResponseWriter<Response>*,
                                          grpc::CompletionQueue*, grpc::ServerCompletionQueue*,
                                          void*);

// A unary method with typed messages on a completion queue. Thread-safe after construction.
// Outlives its calls: destroy it after the gate was closed.
template <typename Request, typename Response>
class UnaryMethod {
 public:
  // Answers one call, on the I/O thread, by filling `response` and returning OK, or with an error.
  // Called by several threads at once where several queues or threads are used. Must not block.
  using Answer = std::function<grpc::Status(const Request& request, Response* response)>;

  // Answers one call later, by calling `reply` once, on any thread. Called as Answer is, and must
  // not block either; `request` lives until it returns.
  using Reply = std::function<void(const grpc::Status& status, const Response& response)>;
  using LaterAnswer = std::function<void(const Request& request, Reply reply)>;

  // `request_method` is the generated &Service::Request… of an asynchronous `service`.
  template <typename Service, typename Declaring>
  UnaryMethod(CallGate& gate, Service& service,
              RequestMethod<Declaring, Request, Response> request_method, LaterAnswer answer)
      : gate_(gate),
        accept_([&service, request_method](Call& call, grpc::ServerCompletionQueue* queue) {
          (service.*request_method)(&call.context, &call.request, &call.writer, queue, queue,
                                    static_cast<CompletionTag*>(&call.on_accepted));
        }),
        answer_(std::move(answer)) {}

  template <typename Service, typename Declaring>
  UnaryMethod(CallGate& gate, Service& service,
              RequestMethod<Declaring, Request, Response> request_method, Answer answer)
      : UnaryMethod(gate, service, request_method,
                    LaterAnswer([answer = std::move(answer)](const Request& request, Reply reply) {
                      Response response;
                      const grpc::Status status = answer(request, &response);
                      reply(status, response);
                    })) {}

  UnaryMethod(const UnaryMethod&) = delete;
  UnaryMethod& operator=(const UnaryMethod&) = delete;

  // Waits for one call on `queue`; each call that comes makes place for the next. Call after the
  // server was built, as often as accepts shall be pending. Does nothing once the gate is closed.
  void Start(grpc::ServerCompletionQueue* queue) {
    CallGate::Pass pass = gate_.TryEnter();
    if (!pass) return;
    accept_(*new Call(*this, queue, std::move(pass)), queue);
  }

 private:
  // Accept, answer, finish: one tag is out at a time, and the last one deletes.
  struct Call {
    Call(UnaryMethod& owner, grpc::ServerCompletionQueue* its_queue, CallGate::Pass its_pass)
        : method(owner),
          queue(its_queue),
          pass(std::move(its_pass)),
          writer(&context),
          on_accepted(this),
          on_finished(this) {}

    void OnAccepted(bool ok) {
      if (!ok) {  // The server is shutting down.
        delete this;
        return;
      }
      method.Start(queue);
      method.answer_(request, [this](const grpc::Status& status, const Response& response) {
        CompletionTag* const tag = &on_finished;
        if (status.ok()) {
          writer.Finish(response, status, tag);
        } else {
          writer.FinishWithError(status, tag);
        }
      });
    }

    void OnFinished(bool /*ok*/) { delete this; }

    UnaryMethod& method;
    grpc::ServerCompletionQueue* const queue;
    const CallGate::Pass pass;
    grpc::ServerContext context;
    Request request;
    grpc::ServerAsyncResponseWriter<Response> writer;
    MethodTag<Call, &Call::OnAccepted> on_accepted;
    MethodTag<Call, &Call::OnFinished> on_finished;
  };

  CallGate& gate_;
  const std::function<void(Call& call, grpc::ServerCompletionQueue* queue)> accept_;
  const LaterAnswer answer_;
};

}  // namespace millrace
