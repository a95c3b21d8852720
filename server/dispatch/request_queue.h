// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "server/dispatch/pending_request.h"

namespace millrace {

// Requests that have no place in a batch yet, first come, first served: the queue, bounded in
// rows, and at its door the parked ones, of which each stream has at most one. Thread-compatible:
// the dispatcher guards it.
class RequestQueue {
 public:
  explicit RequestQueue(int64_t most_rows) : most_rows_(most_rows) {}

  // Whether a request of `rows` rows may enter now. An empty queue takes any.
  bool HasRoom(int64_t rows) const;

  // Enters at the end. REQUIRES: HasRoom(request->rows()).
  void Push(std::shared_ptr<PendingRequest> request);

  // Waits at the door.
  void Park(std::shared_ptr<PendingRequest> request) { door_.push_back(std::move(request)); }

  // Lets those at the door in for whom there is room, in order, and returns them.
  std::vector<std::shared_ptr<PendingRequest>> AdmitParked();

  bool empty() const { return queue_.empty(); }
  const std::shared_ptr<PendingRequest>& front() const { return queue_.front(); }

  // Says that `rows` more rows of the first request have found a place; the request leaves when
  // all have.
  void ClaimedFromFront(int64_t rows);

  // Takes the first request out. REQUIRES: !empty().
  void PopFront();

  struct Removed {
    std::vector<std::shared_ptr<PendingRequest>> queued;
    std::vector<std::shared_ptr<PendingRequest>> parked;
  };

  // Removes the requests that `matches` picks, from the queue and from the door.
  Removed Remove(absl::FunctionRef<bool(const PendingRequest&)> matches);

  // Rows that wait in the queue; those at the door don't count.
  int64_t rows() const { return rows_; }
  size_t parked() const { return door_.size(); }
  // When the first request arrived; InfiniteFuture() where nobody waits.
  absl::Time oldest_arrival() const;

 private:
  const int64_t most_rows_;
  std::deque<std::shared_ptr<PendingRequest>> queue_;
  std::deque<std::shared_ptr<PendingRequest>> door_;
  int64_t rows_ = 0;
};

}  // namespace millrace
