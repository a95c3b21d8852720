// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/credentials.h"
#include "client/stream.h"
#include "grpcpp/grpcpp.h"
#include "proto/grpc_service.grpc.pb.h"

namespace millrace {
inline namespace client {

// The working part of a Stream: its requests, its one thread, and its gRPC calls, one after the
// other when the stream moves to another server. Not installed. Thread-safe.
//
// The thread waits for gRPC's completions: it reads and delivers. Writes are started by Send(),
// while none is in flight, or else by the thread when the one before completes; so no call of the
// application blocks on the network, and a full window is the only thing that blocks Send().
//
// Invariants, beyond Stream's:
//  1. A request leaves `unanswered_` when its answer was received: in request order at the front
//     only; in completion order it is found by its id, which is the stream's own on the wire, since
//     those that the application gives need not differ.
//  2. At most one write is in flight; `sent_` requests at the front of `unanswered_` were handed to
//     the current call.
//  3. A call's objects live until all its completions came back.
//  4. A connection whose server says that it drains is sent nothing more but the end of the
//     requests; what it was sent is answered there, and the rest goes over the next one.
//  5. The callback runs, and messages are written, without holding `mutex_`.
class Stream::Call {
 public:
  // `token` is null where the stream brings none.
  Call(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<TokenFile> token,
       StreamOptions options);
  ~Call();

  absl::Status Send(Request request);
  std::optional<Answer> Next();
  absl::Status Close();
  void Cancel();

 private:
  enum Event : intptr_t { kStarted, kRead, kWritten, kFinished };

  // One gRPC call.
  struct Connection {
    const absl::Time started = absl::Now();
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientAsyncReaderWriter<inference::ModelInferRequest,
                                                  inference::ModelStreamInferResponse>>
        stream;
    inference::ModelStreamInferResponse received;
    grpc::Status status;
    absl::Status own_error;  // why the stream itself cancelled this call; overrides `status`
    bool connected = false;
    bool finishing = false;
    bool answered = false;  // at least one answer came
    bool noticed = false;   // the server said that it drains
    // Guarded by the Call's mutex:
    int in_flight = 0;
    bool writable = false;
    bool writing = false;
    bool writes_done = false;
  };

  // A request that Send() accepted.
  struct Unanswered {
    int64_t index;
    std::string id;  // the application's
    inference::ModelInferRequest message;
  };

  void Run();
  absl::Status RunConnection();
  absl::Status StartConnection();
  void HandleCompletions();
  bool NextCompletion(void** tag, bool* ok);
  void Abandon(absl::Status error);
  void HandleCompletion(Event event, bool ok);
  void Expect();
  void StartRead();
  void StartFinish();
  void StartWrite();
  absl::Status TakeAnswer();
  absl::StatusOr<size_t> FindAnswered(const std::string& id) const;
  void Deliver(Answer answer);
  absl::Status EndOfConnection();
  bool WasDrained() const;
  bool MayReconnect(const absl::Status& status);
  bool MaySearch() const;
  bool WaitBeforeReconnecting();
  void End(absl::Status status);

  const std::shared_ptr<TokenFile> token_;
  const StreamOptions options_;
  const size_t window_;
  const absl::Time deadline_;
  const std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
  grpc::CompletionQueue completions_;

  // Only the thread's, between two connections and within one; the mutex guards the pointer.
  std::unique_ptr<Connection> connection_;
  std::optional<absl::Time> drained_at_;  // looking for a server since then
  absl::Duration backoff_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Unanswered>> unanswered_;
  size_t sent_ = 0;
  size_t window_used_ = 0;      // accepted, and the answer not yet taken
  int64_t accepted_ = 0;        // the index of the next request
  int64_t answered_ = 0;        // how many were
  std::deque<Answer> answers_;  // for Next()
  bool closing_ = false;        // no more requests follow
  bool cancelled_ = false;
  std::optional<absl::Status> end_;  // set once: no more requests are accepted
  bool ended_ = false;               // set after the last answer

  std::thread thread_;
};

}  // namespace client
}  // namespace millrace
