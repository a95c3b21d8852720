// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "server/base/mutex.h"
#include "server/inference/responder.h"
#include "server/inference/response.h"

namespace millrace {

// Sends one stream's responses in the order in which its requests arrived, whatever order the
// replicas finish them in. Thread-safe: the stream's reader calls Reserve(), any thread answers.
//
// Invariants:
//  1. A place in line is taken on arrival, never on completion.
//  2. Every place yields exactly one response: a Responder destroyed unused answers INTERNAL for
//     itself, so the line never stalls.
//  3. `send` runs for one response at a time, in the order of places, never under the lock.
//  4. After Abandon() has returned, `send` does not start again.
class ResponseSequencer final : public ResponseSink,
                                public std::enable_shared_from_this<ResponseSequencer> {
 public:
  using Send = absl::AnyInvocable<void(Response&&)>;

  // Shared, because Responders outlive a stream whose peer has gone.
  static std::shared_ptr<ResponseSequencer> Create(Send send);

  // Takes the next place in line and returns the right to answer it, once. Never blocks. Call in
  // arrival order, from one thread at a time.
  Responder Reserve() ABSL_LOCKS_EXCLUDED(mutex_);

  // Drops the answers that wait and those to come. Does not wait for a `send` that is running.
  void Abandon() ABSL_LOCKS_EXCLUDED(mutex_);

  // Places taken whose answer has not been handed to `send`; 0 after Abandon().
  uint64_t outstanding() const ABSL_LOCKS_EXCLUDED(mutex_);

  // ResponseSink: the answer of a place. Sends it, and those behind it that waited for it, unless
  // an earlier place has yet to answer or another thread is sending.
  void Deliver(uint64_t place, Response&& response) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  explicit ResponseSequencer(Send send) : send_(std::move(send)) {}

  mutable Mutex mutex_;
  // The line: places [first_place_, first_place_ + line_.size()), null until answered.
  std::deque<std::unique_ptr<Response>> line_ ABSL_GUARDED_BY(mutex_);
  uint64_t first_place_ ABSL_GUARDED_BY(mutex_) = 0;
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  Send send_;  // Only the thread that set sending_ calls it.
};

}  // namespace millrace
