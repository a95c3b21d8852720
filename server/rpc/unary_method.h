// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "grpcpp/completion_queue.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/async_unary_call.h"
#include "grpcpp/support/status.h"
#include "server/base/event_fd.h"
#include "server/base/unique_fd.h"
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

  // As LaterAnswer; `over` is an eventfd that becomes readable once the client has gone, or the
  // call is over in another way.
  using WatchedAnswer = std::function<void(const Request& request, Reply reply,
                                           std::shared_ptr<const UniqueFd> over)>;

  // `request_method` is the generated &Service::Request… of an asynchronous `service`.
  template <typename Service, typename Declaring>
  UnaryMethod(CallGate& gate, Service& service,
              RequestMethod<Declaring, Request, Response> request_method, WatchedAnswer answer)
      : UnaryMethod(gate, service, request_method, std::move(answer), /*watched=*/true) {}

  template <typename Service, typename Declaring>
  UnaryMethod(CallGate& gate, Service& service,
              RequestMethod<Declaring, Request, Response> request_method, LaterAnswer answer)
      : UnaryMethod(
            gate, service, request_method,
            [answer = std::move(answer)](const Request& request, Reply reply,
                                         const std::shared_ptr<const UniqueFd>& /*over*/) {
              answer(request, std::move(reply));
            },
            /*watched=*/false) {}

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
  template <typename Service, typename Declaring>
  UnaryMethod(CallGate& gate, Service& service,
              RequestMethod<Declaring, Request, Response> request_method, WatchedAnswer answer,
              bool watched)
      : gate_(gate),
        accept_([&service, request_method](Call& call, grpc::ServerCompletionQueue* queue) {
          (service.*request_method)(&call.context, &call.request, &call.writer, queue, queue,
                                    static_cast<CompletionTag*>(&call.on_accepted));
        }),
        answer_(std::move(answer)),
        watched_(watched) {}

  // Accept, answer, finish: one tag is out at a time, and where the call is watched, from its
  // accept on one more. The last one deletes.
  struct Call {
    Call(UnaryMethod& owner, grpc::ServerCompletionQueue* its_queue, CallGate::Pass its_pass)
        : method(owner),
          queue(its_queue),
          pass(std::move(its_pass)),
          writer(&context),
          on_accepted(this),
          on_finished(this),
          on_over(this) {
      if (!method.watched_) return;
      over = std::make_shared<const UniqueFd>(MakeEvent());
      tags = 2;
      context.AsyncNotifyWhenDone(static_cast<CompletionTag*>(&on_over));
    }

    void OnAccepted(bool ok) {
      if (!ok) {  // The server is shutting down.
        delete this;
        return;
      }
      method.Start(queue);
      const auto reply = [this](const grpc::Status& status, const Response& response) {
        CompletionTag* const tag = &on_finished;
        if (status.ok()) {
          writer.Finish(response, status, tag);
        } else {
          writer.FinishWithError(status, tag);
        }
      };
      method.answer_(request, reply, over);
    }

    void OnFinished(bool /*ok*/) {
      if (tags.fetch_sub(1) == 1) delete this;
    }

    void OnOver(bool /*ok*/) {
      SignalEvent(over->get());
      if (tags.fetch_sub(1) == 1) delete this;
    }

    UnaryMethod& method;
    grpc::ServerCompletionQueue* const queue;
    const CallGate::Pass pass;
    grpc::ServerContext context;
    Request request;
    grpc::ServerAsyncResponseWriter<Response> writer;
    MethodTag<Call, &Call::OnAccepted> on_accepted;
    MethodTag<Call, &Call::OnFinished> on_finished;
    MethodTag<Call, &Call::OnOver> on_over;
    std::shared_ptr<const UniqueFd> over;  // Null where the call isn't watched.
    std::atomic<int> tags = 1;             // Still to come; two I/O threads may have one each.
  };

  CallGate& gate_;
  const std::function<void(Call& call, grpc::ServerCompletionQueue* queue)> accept_;
  const WatchedAnswer answer_;
  const bool watched_;
};

}  // namespace millrace
