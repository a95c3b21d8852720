// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "server/base/intrusive_list.h"
#include "server/dispatch/fair_queue.h"
#include "server/dispatch/pending_request.h"
#include "server/dispatch/preparation_queue.h"
#include "server/dispatch/time_heap.h"

namespace millrace {

// Requests that have no place in a batch yet: those in the queue, bounded in rows per priority
// level, and those parked at its doors, one door per level, to be let in first come, first served.
// Holds no reference: a request outlives its wait. Thread-compatible: the dispatcher guards it.
class WaitingRoom {
 public:
  // `most_rows[level - 1]` are the rows that a level's queue holds.
  explicit WaitingRoom(std::vector<int64_t> most_rows);

  // The same for the same levels. Whoever is in the queue stays, also where it holds fewer now.
  void SetMostRows(std::vector<int64_t> most_rows) { most_rows_ = std::move(most_rows); }

  // Whether the queue of the request's level has room for it. An empty one takes any.
  bool HasRoom(const PendingRequest& request) const;
  // Whether it may enter now: there is room, and nobody is before it at the door.
  bool MayEnter(const PendingRequest& request) const {
    return door(request).empty() && HasRoom(request);
  }

  // Enters the queue at the end of the flow's line in tier `request.tier`.
  void Enter(PendingRequest& request);
  // Enters the queue again, in front of the flow's line: rows of it have lost their places.
  void PutBack(PendingRequest& request, double cost);
  // Waits at the door of its level: at its end, or before `place`.
  void Park(PendingRequest& request, PendingRequest* place = nullptr);

  // Says that the last row of a request is prepared.
  void Prepared(PendingRequest& request);

  // Takes a request out of the queue or away from the door.
  void Remove(PendingRequest& request);
  // Says that rows of the first request of a line have found a place; see FairQueue::Claim().
  void Claim(PendingRequest& request, int64_t rows, double cost);

  // Whether the request is in the queue or at a door.
  static bool Holds(const PendingRequest& request) { return request.in_line.linked; }
  static bool IsParked(const PendingRequest& request) {
    return request.in_line.linked && request.line == nullptr;
  }

  // The first at a door for whom there is room, to be removed and entered; null where there is
  // none.
  PendingRequest* FirstToLetIn() const;

  // The request in the queue of a level that must start first to make its deadline; null where
  // none has one.
  PendingRequest* MostUrgent(int level) const { return urgent(level).top(); }
  // The same among those that must start before `end` and are `eligible`.
  PendingRequest* MostUrgent(int level, absl::Time end,
                             absl::FunctionRef<bool(const PendingRequest&)> eligible) const;
  // About how many rows in the queue of a level have a deadline.
  int64_t RowsWithDeadline(int level) const;
  // A request whose `expiry` has come; null where there is none.
  PendingRequest* Expired(absl::Time now) const;
  absl::Time next_expiry() const { return expiries_.next(); }
  // Sees when a request expires now that its limits have changed.
  void Update(PendingRequest& request, absl::FunctionRef<void(PendingRequest&)> change);
  // Lets those of the request's level that aren't delayed go before it.
  void Delay(PendingRequest& request);

  PreparationQueue& preparations() { return preparations_; }
  FairQueue& queue() { return queue_; }
  const FairQueue& queue() const { return queue_; }
  int64_t parked() const { return parked_count_; }
  int64_t most_rows(int level) const { return most_rows_[static_cast<size_t>(level) - 1]; }

 private:
  using Door = IntrusiveList<PendingRequest, &PendingRequest::in_line>;
  using Expiries = TimeHeap<PendingRequest, &PendingRequest::expiry, &PendingRequest::expiry_place>;
  using Urgencies =
      TimeHeap<PendingRequest, &PendingRequest::latest_start, &PendingRequest::urgency_place>;

  // Enters and leaves the heaps.
  void Watch(PendingRequest& request);
  void Unwatch(PendingRequest& request);

  Urgencies& urgent(int level) { return urgent_[static_cast<size_t>(level) - 1]; }
  const Urgencies& urgent(int level) const { return urgent_[static_cast<size_t>(level) - 1]; }
  Door& door(const PendingRequest& request) {
    return doors_[static_cast<size_t>(request.level) - 1];
  }
  const Door& door(const PendingRequest& request) const {
    return doors_[static_cast<size_t>(request.level) - 1];
  }

  std::vector<int64_t> most_rows_;
  FairQueue queue_;
  PreparationQueue preparations_;
  std::vector<Door> doors_;
  int64_t parked_count_ = 0;
  Expiries expiries_;
  std::vector<Urgencies> urgent_;  // By level; of those in the queue.
};

}  // namespace millrace
