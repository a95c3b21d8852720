// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace millrace {

// What becomes of a request that finds no room.
enum class Overflow {
  kBlock,       // It waits at the door; its flow brings no more until it is let in.
  kReject,      // It is answered RESOURCE_EXHAUSTED.
  kDropOldest,  // It takes the place of its flow's oldest that waits, which is answered ABORTED.
  kLatest,      // As kDropOldest, and of its flow at most one waits: the newest.
};

// Requests that take turns with others as one: those of a stream, or the unary calls of a
// connection. Immutable, hence thread-safe.
class Flow {
 public:
  static constexpr int kMostWeight = 100;

  struct Options {
    int weight = 1;                         // Its share of the replicas, relative to other flows.
    std::optional<Overflow> overflow = {};  // Nullopt: as the model's configuration says.
    // With kDropOldest, how many of its requests wait at most; older ones are dropped for newer.
    int64_t most_waiting = std::numeric_limits<int64_t>::max();
    // A request that no replica has taken by this age is dropped.
    absl::Duration max_age = absl::InfiniteDuration();
    // Called without locks, from any thread, when the number of its requests at a door changes.
    absl::AnyInvocable<void(int change) const> on_parked = nullptr;
  };

  Flow() : options_() {}
  explicit Flow(Options options) : options_(std::move(options)) {}

  // A number that no other flow has or had.
  uint64_t id() const { return id_; }
  int weight() const { return options_.weight; }
  std::optional<Overflow> overflow() const { return options_.overflow; }
  int64_t most_waiting() const { return options_.most_waiting; }
  absl::Duration max_age() const { return options_.max_age; }
  void Parked(int change) const {
    if (options_.on_parked) options_.on_parked(change);
  }

 private:
  static uint64_t NextId() {
    static std::atomic<uint64_t> next{1};
    return next.fetch_add(1, std::memory_order_relaxed);
  }

  const uint64_t id_ = NextId();
  const Options options_;
};

}  // namespace millrace
