// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/metadata.h"
#include "client/request.h"
#include "client/response.h"

namespace millrace {
inline namespace client {

// The answer to one request of a stream.
struct Answer {
  // The request's place in the stream: 0, 1, 2, …
  int64_t index = 0;
  // The request's id.
  std::string id;
  // The model's response, or why there is none; such an error concerns this request only, unless
  // the stream itself ended (see Stream).
  absl::StatusOr<Response> response;
  // What the server sent along with an error: the request's `millrace_echo_…` parameters, say.
  Parameters error_parameters = {};
};

struct StreamOptions {
  // How many requests may be under way: sent, and their answers not yet taken. Zero means 32, the
  // server's own default; another number is also told to the server (metadata `millrace-window`),
  // which reads ahead that far, up to its --max-stream-window.
  int window = 0;
  // What the server does with a request that finds no room in the model's queue. Nothing: as the
  // model's configuration says, which is to block where it says nothing.
  enum class Overflow {
    kBlock,       // It waits, and the server reads no more of this stream meanwhile.
    kReject,      // It is answered RESOURCE_EXHAUSTED.
    kDropOldest,  // The oldest of this stream's that waits is answered ABORTED in its stead.
    kLatest,      // The same; and only one of this stream's waits at a time, the newest.
  };
  std::optional<Overflow> overflow = {};
  // In which order the answers come.
  enum class Order {
    kRequest,     // That of the requests.
    kCompletion,  // As they are there. Answer::index says whose they are.
  };
  Order order = Order::kRequest;
  // The stream's share of the server relative to other streams, 1 to 100. Zero: the server's own
  // default, 1.
  int weight = 0;
  // A request that has not begun to run when it is that old is answered ABORTED. At least 1 us.
  absl::Duration max_age = absl::InfiniteDuration();
  // The stream's own settings for the server, after ClientOptions::metadata.
  Metadata metadata = {};
  // The life of the whole stream; then it ends with DEADLINE_EXCEEDED.
  absl::Duration timeout = absl::InfiniteDuration();
  // How long a stream whose server shuts down, or sends it to another connection, looks for a
  // server (another one, or the same). Zero: it doesn't, and ends with UNAVAILABLE.
  absl::Duration reconnect_timeout = absl::Seconds(30);
  // Takes the answers, in that order, one at a time, on a thread of the stream. The next answer is
  // read when it returns, so a slow one slows the stream. It may call Send(), which then refuses
  // instead of blocking, and Cancel(), but neither Close() nor the destructor. Without it: Next().
  std::function<void(Answer)> on_answer = {};
};

// A stream of requests, for any models, whose answers come in the order of the requests, or as they
// are there (StreamOptions::order). Thread-safe; usually one thread sends and another (or the
// callback) takes the answers.
//
// Invariants:
//  1. Every request that Send() accepted yields exactly one Answer, whatever happens; in request
//     order it comes at its place.
//  2. When the server shuts down, or the connection has reached the age that the server lets them
//     have, it says so on the stream, and ends it in order, with the trailer `millrace-answered`:
//     the stream connects again, to a server that can serve, and sends what was left unanswered;
//     nobody notices. A request is sent twice only when a server that has said so, or that has not
//     served this stream yet, has not answered it.
//  3. When the stream ends for any other reason (the server died, a deadline, Cancel()), that
//     status is the answer to every request still under way, and the result of Send() and Close().
//  4. No more than `window` requests and answers are in memory.
class Stream {
 public:
  // Cancels what is still under way, delivers those answers, and waits for the callback to return.
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Sends a request. Blocks while the window is full, that is, until an answer was taken: one
  // thread that both sends and takes must not send more than a window ahead of its Next().
  // Returns the stream's status when it has ended, FAILED_PRECONDITION after Close() and, in the
  // callback, when the window is full.
  absl::Status Send(Request request);

  // Waits for the next answer; nothing after the last one. For streams without a callback.
  std::optional<Answer> Next();

  // Says that no more requests follow, and waits until every answer is here: in the callback's
  // hands, or ready for Next(). Returns OK when the server ended the stream in good order; errors
  // of single requests don't count.
  absl::Status Close();

  // Ends the stream at once; what was under way is answered CANCELLED. Returns without waiting.
  void Cancel();

 private:
  friend class Client;
  class Call;
  explicit Stream(std::unique_ptr<Call> call);

  const std::unique_ptr<Call> call_;
};

}  // namespace client
}  // namespace millrace
