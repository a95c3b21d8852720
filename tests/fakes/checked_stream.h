// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/ordering/response_sequencer.h"
#include "tests/fakes/echo_pool.h"

namespace millrace {

// A stream of requests to echo models that checks its answers: every request gets exactly one, a
// right one, in the order in which they were asked. Thread-safe; Ask() is for one thread.
class CheckedStream final {
 public:
  // What was asked, and what the answer may be besides the echo.
  struct Asked {
    std::vector<int32_t> values = {};
    bool may_be_rejected = false;  // When the queue is full.
    bool may_lose_replicas = false;
    bool may_be_stopped = false;
    absl::Time deadline = absl::InfiniteFuture();
  };

  explicit CheckedStream(Clock& clock)
      : clock_(clock),
        sequencer_(ResponseSequencer::Create(
            {.send = [this](uint64_t, Response&& response) { Check(response); }})) {}

  // Submits a request of `rows` rows, at the door where the queue is full and `may_be_rejected` is
  // false.
  void Ask(EchoPool& pool, Asked asked, int64_t rows) ABSL_LOCKS_EXCLUDED(mutex_) {
    auto pending = pool.Pending(asked.values, rows, sequencer_->Reserve(), caller_);
    pending->deadline = asked.deadline;
    pending->overflow = asked.may_be_rejected ? Overflow::kReject : Overflow::kBlock;
    {
      MutexLock lock(mutex_);
      pending->id = absl::StrCat(asked_++);
      unanswered_.push_back(std::move(asked));
    }
    pool.dispatcher().Submit(std::move(pending));
  }

  // Goes away; answers that come all the same are still checked.
  void Cancel(std::deque<EchoPool>& pools) {
    caller_->Cancel();
    for (EchoPool& pool : pools) pool.dispatcher().Cancel(*caller_);
  }

  // A request of the stream waits at a door: a stream reads no more then.
  bool parked() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return parked_ > 0;
  }
  bool cancelled() const { return caller_->cancelled(); }
  size_t unanswered() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return unanswered_.size();
  }
  // Nobody is told anything any more.
  bool Settled() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return unanswered_.empty() && parked_ == 0;
  }

  // Blocks while at least `most` are unanswered or one is parked, at most until `deadline`; false
  // when that passed.
  bool WaitForRoom(size_t most, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    while (unanswered_.size() >= most || parked_ > 0) {
      if (clock_.Now() >= deadline) return false;
      clock_.WaitUntil(changed_, mutex_, deadline);
    }
    return true;
  }

 private:
  void AddParked(int change) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    parked_ += change;
    changed_.NotifyAll();
  }

  void Check(const Response& response) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    ASSERT_FALSE(unanswered_.empty()) << "An answer that nobody asked for.";
    EXPECT_EQ(response.id, absl::StrCat(answered_)) << "The order of the stream is broken.";
    EXPECT_EQ(Fault(unanswered_.front(), response), "");
    ++answered_;
    unanswered_.pop_front();
    changed_.NotifyAll();
  }

  // What is wrong with the answer; empty where nothing is.
  std::string Fault(const Asked& asked, const Response& response) const {
    const bool culprit =
        std::find(asked.values.begin(), asked.values.end(), kCulprit) != asked.values.end();
    const std::string message(response.status.message());
    const auto says = [&](const char* text) { return message.find(text) != std::string::npos; };
    switch (response.status.code()) {
      case absl::StatusCode::kOk:
        if (culprit) return "A request that the model can't run was answered.";
        return response.outputs.size() == 1 &&
                       Int32s(response.outputs[0].data) == Echoes(asked.values)
                   ? ""
                   : "The values are wrong.";
      case absl::StatusCode::kInternal:
        if (says("raised an exception")) return culprit ? "" : "A neighbour's error.";
        if (says("died")) return asked.may_lose_replicas ? "" : "No replica died.";
        return message;
      case absl::StatusCode::kCancelled:
        return cancelled() ? "" : "Nobody cancelled.";
      case absl::StatusCode::kDeadlineExceeded:
        if (says("which is too short")) return "";  // Refused by what batches took so far.
        return clock_.Now() >= asked.deadline ? "" : "The deadline hasn't passed.";
      case absl::StatusCode::kResourceExhausted:
        return asked.may_be_rejected ? "" : "A stream was refused.";
      case absl::StatusCode::kUnavailable:
        return asked.may_be_stopped ? "" : "Nobody stopped the model.";
      default:
        return response.status.ToString();
    }
  }

  Clock& clock_;
  const std::shared_ptr<Caller> caller_ = std::make_shared<Caller>(std::make_shared<Flow>(
      Flow::Options{.on_parked = [this](int change) { AddParked(change); }}));
  const std::shared_ptr<ResponseSequencer> sequencer_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Asked> unanswered_ ABSL_GUARDED_BY(mutex_);
  uint64_t asked_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t answered_ ABSL_GUARDED_BY(mutex_) = 0;
  int parked_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace millrace
