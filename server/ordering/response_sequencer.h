// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "server/base/mutex.h"
#include "server/inference/responder.h"
#include "server/inference/response.h"

namespace millrace {

// The order in which the answers of a stream leave.
enum class AnswerOrder {
  kRequest,     // That of its requests.
  kCompletion,  // As they are there.
};

// Sends one stream's responses, one at a time: in the order in which its requests arrived, whatever
// order the replicas finish them in; or, where the stream asks for that, as they are finished.
// Thread-safe: the stream's reader calls Reserve(), any thread answers.
//
// Invariants:
//  1. A place in line is taken on arrival, never on completion. Places are numbered from 0.
//  2. Every place yields exactly one response: a Responder destroyed unused answers INTERNAL for
//     itself, so the line never stalls.
//  3. `send` runs for one response at a time, never under the lock; with AnswerOrder::kRequest in
//     the order of places.
//  4. After Abandon() has returned, `send` does not start again.
class ResponseSequencer final : public ResponseSink,
                                public std::enable_shared_from_this<ResponseSequencer> {
 public:
  using Send = absl::AnyInvocable<void(uint64_t place, Response&& response)>;
  using Decided = absl::AnyInvocable<void(uint64_t place, const Response& response) const>;

  struct Options {
    Send send;
    AnswerOrder order = AnswerOrder::kRequest;
    // Called, where it is set, once for every answer and before that is sent, by any thread and
    // without the lock, when the answer is there, though it may have to wait for its turn. May
    // still be called after Abandon().
    Decided decided = nullptr;
  };

  // Shared, because Responders outlive a stream whose peer has gone.
  static std::shared_ptr<ResponseSequencer> Create(Options options);

  // Takes the next place in line and returns the right to answer it, once. Never blocks. Call in
  // arrival order, from one thread at a time.
  Responder Reserve() ABSL_LOCKS_EXCLUDED(mutex_);

  // Drops the answers that wait and those to come. Does not wait for a `send` that is running.
  void Abandon() ABSL_LOCKS_EXCLUDED(mutex_);

  // Places taken whose answer has not been handed to `send`; 0 after Abandon().
  uint64_t outstanding() const ABSL_LOCKS_EXCLUDED(mutex_);

  // ResponseSink: the answer of a place. Sends it, and those behind it that waited for it, unless
  // its turn has not come or another thread is sending.
  void Deliver(uint64_t place, Response&& response) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // An answer in line, null where it is not there yet.
  struct Waiting {
    uint64_t place;
    std::unique_ptr<Response> answer;
  };

  explicit ResponseSequencer(Options options)
      : order_(options.order),
        decided_(std::move(options.decided)),
        send_(std::move(options.send)) {}

  // Where the answer of `place` stands in line.
  size_t IndexOf(uint64_t place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const AnswerOrder order_;
  const Decided decided_;

  mutable Mutex mutex_;
  // In request order every place from `sent_` on; else the answers that wait while one is sent.
  std::deque<Waiting> line_ ABSL_GUARDED_BY(mutex_);
  uint64_t taken_ ABSL_GUARDED_BY(mutex_) = 0;  // Places.
  uint64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;   // Places whose answer was handed to send_.
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  Send send_;  // Only the thread that set sending_ calls it.
};

}  // namespace millrace
