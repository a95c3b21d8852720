// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/gate.h"

namespace millrace {

// Who may start operations on the server's completion queues. An operation on a queue that was shut
// down ends the process, so every call object, from its accept on, holds a Pass; queues are shut
// down only after Close() was true. Thread-safe. Outlives all passes.
//
// A server stops in this order: grpc::Server::Shutdown(deadline), which fails the pending accepts
// and, at the deadline, cancels what still runs; Close(); CompletionQueue::Shutdown() of each
// queue; its I/O threads end when Next() is false.
class CallGate {
 public:
  // The right to start operations, while it lives. Move-only.
  class Pass {
   public:
    Pass() = default;
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept {
      std::swap(gate_, other.gate_);
      return *this;
    }
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave();
    }

    // Whether the right was granted.
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    friend class CallGate;
    explicit Pass(Gate* gate) : gate_(gate) {}

    Gate* gate_ = nullptr;
  };

  // The right to start operations for one more call; false once the gate is closed. Never blocks.
  Pass TryEnter() { return Pass(gate_.TryEnter() ? &gate_ : nullptr); }

  // Grants no more passes and waits until all are given back or `deadline` has passed; true when
  // all are. Blocks: the I/O threads must go on meanwhile. May be called again.
  bool Close(Clock& clock, absl::Time deadline) { return gate_.Close(clock, deadline); }

  // Passes that are out: pending accepts and open calls.
  int live() const { return gate_.inside(); }

 private:
  Gate gate_;
};

}  // namespace millrace
