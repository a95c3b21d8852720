// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/base/intrusive_list.h"
#include "server/base/pool.h"
#include "server/dispatch/pending_request.h"

namespace millrace {

// The requests of one flow and one tier with rows to prepare, in their order.
struct PreparationLine {
  uint64_t flow = 0;
  int weight = 1;
  int tier = 0;
  int turns = 0;  // Requests that have begun in this turn.
  IntrusiveList<PendingRequest, &PendingRequest::in_preparation> requests;
  ListHook<PreparationLine> in_ring;
};

// Which row is to be prepared next of those that wait in the queue: a request that has begun goes
// on; then flows take turns, as many requests each as their weight, a tier after the other. Holds
// no reference. Thread-compatible: the dispatcher guards it.
class PreparationQueue {
 public:
  explicit PreparationQueue(int tiers) : rings_(static_cast<size_t>(tiers)) {}

  // A request enters the queue and leaves it.
  void Enter(PendingRequest& request);
  void Leave(PendingRequest& request);

  // Whether a row waits while at most `most` rows in the queue have been taken.
  bool HasWork(int64_t most) const {
    return begun_ != nullptr || (lines_waiting_ > 0 && taken_ < most);
  }

  // Takes the next row's request; the row is `rows_taken - 1`. REQUIRES: HasWork().
  PendingRequest& Take();

 private:
  using Ring = IntrusiveList<PreparationLine, &PreparationLine::in_ring>;

  PreparationLine& LineFor(const PendingRequest& request);
  void Unlink(PendingRequest& request);

  std::vector<Ring> rings_;  // By tier.
  int64_t lines_waiting_ = 0;
  int64_t taken_ = 0;  // Rows of those in the queue that were taken.
  PendingRequest* begun_ = nullptr;
  Pool<PreparationLine> line_pool_;
  absl::flat_hash_map<std::pair<uint64_t, int>, PreparationLine*> lines_;
};

}  // namespace millrace
