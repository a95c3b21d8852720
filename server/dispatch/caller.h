// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "server/dispatch/flow.h"

namespace millrace {

// Who waits for answers: a stream, or one unary call. Its requests are cancelled together.
// Thread-safe.
class Caller {
 public:
  explicit Caller(std::shared_ptr<const Flow> flow) : flow_(std::move(flow)) {}

  // What its requests belong to.
  const Flow& flow() const { return *flow_; }

  // Marks the caller as gone; nothing of it runs that has not started. Tell the dispatchers too.
  void Cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  const std::shared_ptr<const Flow> flow_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace millrace
