// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/base/intrusive_list.h"

namespace millrace {

// Streams with a window send a request when they got an answer. Learns how long each takes for that
// and tells for how long it pays to wait for those that are about to. Thread-compatible.
class ReturnPredictor {
 public:
  // A flow got an answer, or sent a request.
  void Answered(uint64_t flow, absl::Time now);
  void Arrived(uint64_t flow, absl::Time now);

  // Until when a free replica should hold a batch of `rows` rows, at most until it has `most_rows`
  // or, where `sharing` replicas share those that are about to return, its part of all. Waiting W
  // for m more rows spares each of them a setup, m · setup, and costs the rows that are there
  // rows · W: the W with the largest gain is taken, at most `setup`. `now` or before: go.
  absl::Time HoldUntil(absl::Time now, int64_t rows, int64_t most_rows, int sharing,
                       absl::Duration setup) const;

 private:
  struct Habit {
    absl::Time answered;
    double think_ns = -1;  // From an answer to the next request; below 0: not known yet.
    double spread_ns = 0;  // How far off that is.
    int64_t owed = 0;      // Answers that were not followed by a request yet.
    ListHook<Habit> by_answer;

    // When it will have sent its next request; InfiniteFuture() where nothing is known of it.
    absl::Time ReturnsBy() const;
  };

  void Forget(absl::Time now);

  absl::flat_hash_map<uint64_t, std::unique_ptr<Habit>> habits_;
  // Those who owe a request, in the order of their last answers.
  IntrusiveList<Habit, &Habit::by_answer> owing_;
  mutable std::vector<std::pair<absl::Time, int64_t>> returns_;  // Scratch, to allocate nothing.
};

}  // namespace millrace
