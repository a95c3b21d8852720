// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/rpc/stream_glance.h"

namespace millrace {

class InferStream;

// The streams that are open, so that they can be counted and drained. Thread-safe.
class OpenStreams {
 public:
  explicit OpenStreams(size_t limit) : limit_(limit) {}

  // Enters a stream. False when there are as many as may be. A stream that enters while the server
  // drains reads nothing and ends.
  bool Add(const std::shared_ptr<InferStream>& stream) ABSL_LOCKS_EXCLUDED(mutex_);

  void Remove(const InferStream* stream) ABSL_LOCKS_EXCLUDED(mutex_);

  // Drains every stream, and those to come. True when any was open.
  bool Drain() ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until no stream is open, or until `deadline`. Blocks.
  void WaitUntilNone(Clock& clock, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

  // The first `most` streams, in no order, and how many there are in all.
  std::vector<StreamGlance> Look(size_t most, size_t* open) const ABSL_LOCKS_EXCLUDED(mutex_);

  size_t limit() const { return limit_; }

 private:
  const size_t limit_;
  mutable Mutex mutex_;
  CondVar removed_;
  std::map<const InferStream*, std::weak_ptr<InferStream>> streams_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace
