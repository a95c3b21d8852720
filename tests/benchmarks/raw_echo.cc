// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// benchmark-echo: what gRPC alone can do, with nothing behind it. The server's own API (completion
// queue, raw methods, as many pending accepts, the done tag that every call needs), transport
// settings and one I/O thread; every request is answered at once with the bytes of an answer of the
// identity model. Prints its address and serves until it is killed.
//
// Its clients come in at gRPC's own door, or at one of the server's, as an argument says: `plain`,
// `guard` (each byte is looked at before gRPC gets it) or `check` (each call is).
#include <cstdio>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "proto/grpc_service.grpc.pb.h"
#include "server/access/credentials_store.h"
#include "server/base/clock.h"
#include "server/rpc/completion_tag.h"
#include "server/rpc/listeners.h"
#include "server/rpc/transport.h"

namespace millrace {
namespace {

using Service = inference::GRPCInferenceService::WithRawMethod_ModelInfer<
    inference::GRPCInferenceService::WithRawMethod_ModelStreamInfer<
        inference::GRPCInferenceService::AsyncService>>;

template <typename Message>
grpc::ByteBuffer Serialized(const Message& message) {
  const grpc::Slice bytes(message.SerializeAsString());
  return grpc::ByteBuffer(&bytes, 1);
}

inference::ModelInferResponse Answer() {
  inference::ModelInferResponse answer;
  answer.set_model_name("identity");
  answer.set_model_version("1");
  auto* const output = answer.add_outputs();
  output->set_name("OUTPUT__0");
  output->set_datatype("FP32");
  output->add_shape(1);
  output->add_shape(16);
  answer.add_raw_output_contents(std::string(64, '\0'));
  return answer;
}

grpc::ByteBuffer StreamAnswer() {
  inference::ModelStreamInferResponse answer;
  *answer.mutable_infer_response() = Answer();
  (*answer.mutable_infer_response()->mutable_parameters())["triton_final_response"].set_bool_param(
      true);
  return Serialized(answer);
}

struct Echo {
  Service service;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  const grpc::ByteBuffer unary_answer = Serialized(Answer());
  const grpc::ByteBuffer stream_answer = StreamAnswer();
};

// One unary call. Deletes itself after its last tag; the process ends by being killed, so accepts
// never fail.
class EchoCall {
 public:
  static void Accept(Echo& echo) { new EchoCall(echo); }

 private:
  explicit EchoCall(Echo& echo)
      : echo_(echo), writer_(&context_), accepted_(this), finished_(this), done_(this) {
    context_.AsyncNotifyWhenDone(static_cast<CompletionTag*>(&done_));
    echo_.service.RequestModelInfer(&context_, &message_, &writer_, echo_.queue.get(),
                                    echo_.queue.get(), static_cast<CompletionTag*>(&accepted_));
  }

  void OnAccepted(bool /*ok*/) {
    Accept(echo_);
    message_.Clear();
    writer_.Finish(echo_.unary_answer, grpc::Status::OK, static_cast<CompletionTag*>(&finished_));
  }

  void OnEnded(bool /*ok*/) {
    if (--owed_tags_ == 0) delete this;
  }

  Echo& echo_;
  grpc::ServerContext context_;
  grpc::ByteBuffer message_;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> writer_;
  MethodTag<EchoCall, &EchoCall::OnAccepted> accepted_;
  MethodTag<EchoCall, &EchoCall::OnEnded> finished_;
  MethodTag<EchoCall, &EchoCall::OnEnded> done_;
  int owed_tags_ = 2;  // Finish and done.
};

// One stream: a Read is always out, answers are written one after the other.
class EchoStream {
 public:
  static void Accept(Echo& echo) { new EchoStream(echo); }

 private:
  explicit EchoStream(Echo& echo)
      : echo_(echo),
        stream_(&context_),
        accepted_(this),
        read_(this),
        written_(this),
        finished_(this),
        done_(this) {
    context_.AsyncNotifyWhenDone(static_cast<CompletionTag*>(&done_));
    echo_.service.RequestModelStreamInfer(&context_, &stream_, echo_.queue.get(), echo_.queue.get(),
                                          static_cast<CompletionTag*>(&accepted_));
  }

  void OnAccepted(bool /*ok*/) {
    Accept(echo_);
    Read();
  }

  void OnRead(bool ok) {
    if (ok) {
      ++unanswered_;
      Read();
    } else {
      half_closed_ = true;
    }
    Write();
  }

  void OnWritten(bool /*ok*/) {
    writing_ = false;
    Write();
  }

  void OnEnded(bool /*ok*/) {
    if (--owed_tags_ == 0) delete this;
  }

  void Read() { stream_.Read(&message_, static_cast<CompletionTag*>(&read_)); }

  void Write() {
    if (writing_) return;
    if (unanswered_ > 0) {
      --unanswered_;
      writing_ = true;
      grpc::WriteOptions options;
      if (unanswered_ > 0) options.set_buffer_hint();  // More follows at once.
      stream_.Write(echo_.stream_answer, options, static_cast<CompletionTag*>(&written_));
    } else if (half_closed_) {
      stream_.Finish(grpc::Status::OK, static_cast<CompletionTag*>(&finished_));
    }
  }

  Echo& echo_;
  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream_;
  grpc::ByteBuffer message_;
  MethodTag<EchoStream, &EchoStream::OnAccepted> accepted_;
  MethodTag<EchoStream, &EchoStream::OnRead> read_;
  MethodTag<EchoStream, &EchoStream::OnWritten> written_;
  MethodTag<EchoStream, &EchoStream::OnEnded> finished_;
  MethodTag<EchoStream, &EchoStream::OnEnded> done_;
  int unanswered_ = 0;
  bool writing_ = false;
  bool half_closed_ = false;
  int owed_tags_ = 2;  // Finish and done.
};

// `kind` is empty for gRPC's own.
int Serve(const std::string& kind) {
  Echo echo;
  grpc::ServerBuilder builder;
  SetTransport(builder, /*max_message_bytes=*/64 << 20);
  int port = 0;
  auto credentials = CredentialsStore::Create({}, Clock::Real());
  if (!credentials.ok()) return 1;
  std::unique_ptr<Listeners> listeners;
  if (kind.empty()) {
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  } else {
    auto opened =
        Listeners::Open({.addresses = {kind == "guard" ? "127.0.0.1:0?guard=on" : "127.0.0.1:0"},
                         .always_check = kind == "check"},
                        {.clock = &Clock::Real(), .credentials = credentials->get()}, builder);
    if (!opened.ok()) return 1;
    listeners = *std::move(opened);
  }
  builder.RegisterService(&echo.service);
  echo.queue = builder.AddCompletionQueue();
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  for (int i = 0; i < kUnaryAccepts; ++i) EchoCall::Accept(echo);
  for (int i = 0; i < kStreamAccepts; ++i) EchoStream::Accept(echo);
  if (listeners != nullptr && !listeners->Start().ok()) return 1;
  std::printf("%s\n", listeners == nullptr ? ("127.0.0.1:" + std::to_string(port)).c_str()
                                           : listeners->addresses()[0].c_str());
  std::fflush(stdout);
  void* tag;
  bool ok;
  while (echo.queue->Next(&tag, &ok)) static_cast<CompletionTag*>(tag)->Complete(ok);
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return millrace::Serve(argc > 1 ? argv[1] : "");
}
