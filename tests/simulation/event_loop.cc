// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/event_loop.h"

#include <algorithm>

#include "server/base/check.h"

namespace millrace {

void EventLoop::At(absl::Time when, Actor* actor, uint64_t what) {
  MILLRACE_CHECK(when >= clock_.Now(), "Nothing can be made to happen in the past.");
  heap_.push_back({when, scheduled_++, actor, what});
  std::push_heap(heap_.begin(), heap_.end(), Later());
}

void EventLoop::RunUntil(absl::Time end) {
  while (NextTime() <= end) Step();
  clock_.AdvanceTo(end);
}

bool EventLoop::RunToEnd(absl::Time end) {
  while (NextTime() <= end) Step();
  return NextTime() == absl::InfiniteFuture();
}

absl::Time EventLoop::NextTime() const {
  return heap_.empty() ? timer_.NextTime() : std::min(heap_.front().when, timer_.NextTime());
}

void EventLoop::Step() {
  if (heap_.empty() || timer_.NextTime() < heap_.front().when) {
    // A timer that was scheduled for the past is due now.
    clock_.AdvanceTo(std::max(clock_.Now(), timer_.NextTime()));
    steps_ += static_cast<uint64_t>(timer_.RunDue(clock_.Now()));
    return;
  }
  std::pop_heap(heap_.begin(), heap_.end(), Later());
  const Event event = heap_.back();
  heap_.pop_back();
  clock_.AdvanceTo(event.when);
  ++steps_;
  event.actor->Act(event.what);
}

}  // namespace millrace
