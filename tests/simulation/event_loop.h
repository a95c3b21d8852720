// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "tests/fakes/manual_timer.h"
#include "tests/fakes/virtual_clock.h"

namespace millrace {

// Something to which events happen.
class Actor {
 public:
  virtual ~Actor() = default;

  // Does what was scheduled for now; `what` as it was given.
  virtual void Act(uint64_t what) = 0;
};

// Virtual time: lets events happen and timers run, one after the other, in the order of their
// times and at one time in that of scheduling, events before timers. Confined to one thread.
class EventLoop {
 public:
  VirtualClock& clock() { return clock_; }
  ManualTimer& timer() { return timer_; }
  absl::Time now() const { return clock_.Now(); }

  // Lets `actor` act at `when`. REQUIRES: `when` is not in the past; `actor` is alive then.
  void At(absl::Time when, Actor* actor, uint64_t what = 0);

  // Runs whatever happens up to and including `end`, and moves the time there.
  void RunUntil(absl::Time end);

  // Runs until nothing is left to happen, at most until `end`; false where something is left.
  bool RunToEnd(absl::Time end);

  // Events and timers that have run.
  uint64_t steps() const { return steps_; }

 private:
  struct Event {
    absl::Time when;
    uint64_t number;
    Actor* actor;
    uint64_t what;
  };
  // Makes the standard heap's top the event that is next.
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.when != b.when ? a.when > b.when : a.number > b.number;
    }
  };

  absl::Time NextTime() const;
  void Step();

  VirtualClock clock_;
  ManualTimer timer_;
  std::vector<Event> heap_;
  uint64_t scheduled_ = 0;
  uint64_t steps_ = 0;
};

}  // namespace millrace
