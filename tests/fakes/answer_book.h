// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/inference/responder.h"

namespace millrace {

// Keeps the answers to requests by the place they were given for, and fails the test when a place
// is answered twice. Thread-safe.
class AnswerBook final : public ResponseSink, public std::enable_shared_from_this<AnswerBook> {
 public:
  // The right to answer the next place; the places count from 0.
  Responder Expect() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return Responder(shared_from_this(), expected_++);
  }

  void Deliver(uint64_t place, Response&& response) override ABSL_LOCKS_EXCLUDED(mutex_) {
    if (on_deliver) on_deliver(place);
    {
      MutexLock lock(mutex_);
      order_.push_back(place);
      EXPECT_TRUE(answers_.emplace(place, std::move(response)).second)
          << "Place " << place << " was answered twice.";
    }
    if (on_delivered) on_delivered();
  }

  // The answer of a place; null while it is owed.
  const Response* Find(uint64_t place) const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    const auto found = answers_.find(place);
    return found == answers_.end() ? nullptr : &found->second;
  }

  uint64_t expected() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return expected_;
  }

  // The answered places, in the order of their answers.
  std::vector<uint64_t> order() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return order_;
  }

  // Called before and after an answer is noted. Set before the first one.
  std::function<void(uint64_t place)> on_deliver;
  std::function<void()> on_delivered;

 private:
  mutable Mutex mutex_;
  uint64_t expected_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Response> answers_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> order_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
