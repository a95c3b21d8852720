// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "server/dispatch/cost_model.h"

namespace millrace {

// For whom a free replica holds a batch that could go.
enum class Hold {
  kNone,       // For nobody.
  kReturners,  // For streams that are about to send their next request; see ReturnPredictor.
};

// When a batch may go and how large it becomes: the part of the dispatcher to change for another
// batching strategy. Pure functions of the state and the time.
struct BatchPolicy {
  std::vector<int64_t> preferred_sizes = {};              // Rows; reached exactly, a batch goes.
  absl::Duration max_queue_delay = absl::ZeroDuration();  // How long a batch may wait to grow.
  Hold hold = Hold::kNone;

  // A staged batch, as far as the decision needs it.
  struct State {
    int64_t rows = 0;
    bool closed = false;  // Nobody else can join.
    absl::Time oldest_arrival;
    absl::Time hold_until = absl::InfinitePast();  // See ReturnPredictor::HoldUntil().
  };

  // The time from which a free replica takes the batch; in the past: at once. Without a delay or a
  // hold a free replica never waits.
  absl::Time GoAt(const State& state) const;

  // How many rows each of `idle` free replicas is given where `waiting` rows wait for them and a
  // batch holds `capacity`: the whole batch to one of them, or, at low utilisation and where it
  // makes the answers come notably sooner, an equal share to each.
  static int64_t RowsPerReplica(int64_t waiting, int64_t capacity, int idle, double utilisation,
                                const CostModel& cost);

  // What becomes of a batch of `rows` rows, the most urgent of which has `slack` left to its
  // deadline and would make it alone.
  struct Cut {
    int64_t rows = 0;          // So many rows may run, the urgent ones first.
    bool drop_urgent = false;  // They aren't worth a batch so small: they are given up instead.
  };
  // `others_wait`: rows that don't go now keep others waiting.
  static Cut CutFor(absl::Duration slack, int64_t rows, bool others_wait, const CostModel& cost);
};

}  // namespace millrace
