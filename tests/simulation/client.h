// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "server/dispatch/caller.h"
#include "tests/simulation/event_loop.h"
#include "tests/simulation/journal.h"
#include "tests/simulation/load.h"
#include "tests/simulation/simulated_model.h"

namespace millrace {

// One client of a simulated model, and what the server knows of it: a stream that reads no more
// while one of its requests waits at the door. Confined to the loop's thread.
class Client final : public Actor, public Journal::Listener {
 public:
  // Everything random follows from `seed`: of an open load what is sent and when, whatever the
  // server does. All that is given outlives the client.
  Client(const Load& load, int number, EventLoop& loop, SimulatedModel& model, Journal& journal,
         uint64_t seed);
  Client(const Client&) = delete;

  // Sends until `end`.
  void Start(absl::Time end);

  // Actor.
  void Act(uint64_t what) override;
  // Journal::Listener.
  void OnAnswer(const Entry& entry) override;

 private:
  enum What : uint64_t { kArrive, kReturn, kRead };
  struct Unread {
    uint64_t place;
    int shape;
    int64_t rows;
    absl::Time deadline;
  };

  void Send();
  void Submit(const Unread& request);
  void OnParked(int change);
  // The time of the next arrival of an open load, bursts and pauses considered.
  absl::Time NextArrival();

  const Load& load_;
  const int number_;
  EventLoop& loop_;
  SimulatedModel& model_;
  Journal& journal_;
  Random random_;
  const std::shared_ptr<Caller> caller_;
  absl::Time end_;
  absl::Time burst_ends_ = absl::InfiniteFuture();
  int parked_ = 0;
  std::deque<Unread> unread_;  // Sent, while the server reads no more.
};

}  // namespace millrace
