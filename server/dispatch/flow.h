// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

namespace millrace {

// Where requests come from: a stream, or one unary call. Its requests are cancelled together.
// Thread-safe.
class Flow {
 public:
  // Marks the flow as gone; nothing of it runs that has not started. Tell the dispatchers too.
  void Cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace millrace
