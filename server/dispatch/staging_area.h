// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/dispatch/batch.h"
#include "server/dispatch/pending_request.h"
#include "server/dispatch/waiting_flows.h"
#include "server/dispatch/waiting_room.h"
#include "server/inference/batch_buffer.h"

namespace millrace {

// Batches that wait for a replica, the buffers that are free for others, and the requests that wait
// for one of these to be run again. Thread-compatible: the dispatcher guards it.
//
// Invariants:
//  1. At most one batch per row shape is staged whose rows were not run before.
//  2. Rows that are staged are revocable: their request can leave, or go back to the queue in front
//     of its line, until the batch is taken.
class StagingArea {
 public:
  // Members of a batch that has lost its buffer, to be gathered again.
  using Retry = std::vector<Batch::Member>;
  // Rows to be written into a batch, without the dispatcher's lock.
  struct Fill {
    Batch* batch;
    size_t member;
    std::shared_ptr<PendingRequest> request;
    int64_t first_row, rows, batch_row;
  };
  using Fills = absl::InlinedVector<Fill, 4>;

  // `buffers` are all free. What it is given outlives it.
  StagingArea(std::vector<BatchBuffer*> buffers, WaitingRoom& room, WaitingFlows& flows)
      : free_buffers_(std::move(buffers)), room_(room), flows_(flows) {}

  // ---- Gathering ----

  bool HasBuffer() const { return !free_buffers_.empty(); }
  size_t free_buffers() const { return free_buffers_.size(); }
  void FreeBuffer(BatchBuffer* buffer) { free_buffers_.push_back(buffer); }

  // The batch of a shape that others may join; null where there is none.
  Batch* Find(const RowShape& shape) const;
  // Opens a batch of at most `most_rows` rows whose first request will be this one, each row of
  // which is charged `row_cost`. REQUIRES: HasBuffer(), and Find() is null.
  absl::StatusOr<Batch*> Open(const PendingRequest& request, int64_t most_rows, double row_cost);
  // Moves a piece of the first request of a line from the queue to a batch. REQUIRES: it has room.
  Fill Stage(PendingRequest& request, Batch& batch);
  // Makes room for a piece of `rows` rows of a request of `tier`: puts the latest request of the
  // lowest tier behind it back into the queue. False where none can be, or where there would be no
  // room though all of them left.
  bool YieldTo(int tier, int64_t rows, Batch& batch);
  // Puts a member back into the queue: false where it can't be, since it isn't all there, or since
  // a later one of its line would then overtake it.
  bool PutBack(Batch& batch, size_t member);

  // Members that are to run again in these batches wait for buffers, before others or after them.
  void RunAgain(std::vector<Retry> batches, bool first);
  // Gathers them in batches of their own, as far as there are buffers.
  void GatherRetries(Fills& fills);

  // ---- Leaving ----

  // Takes a request out of all batches, with all of its places here; its line is given back what
  // they cost.
  void Remove(PendingRequest& request);
  // Frees the buffers of batches that everybody has left; false where there are none.
  bool FreeEmptyBatches();

  // Nobody who is staged or is to be run again expires before.
  absl::Time next_expiry() const { return next_expiry_; }
  // Those whose expiry has come and who don't wait in the queue as well. The caller removes them,
  // or says by ExpiresAt() until when they may wait on. One may be named more than once.
  std::vector<PendingRequest*> Expired(absl::Time now);
  void ExpiresAt(absl::Time time) { next_expiry_ = std::min(next_expiry_, time); }

  // ---- Starting ----

  const std::vector<std::unique_ptr<Batch>>& batches() const { return staged_; }
  // Takes a batch out, to be run.
  std::unique_ptr<Batch> Take(const Batch& batch);

  int64_t rows() const;
  double cost() const;  // Of the rows, in nanoseconds.
  absl::Time oldest_arrival() const;

 private:
  // Opens the next free buffer for a batch of at most `most_rows` rows. REQUIRES: HasBuffer().
  absl::StatusOr<Batch*> OpenBuffer(const std::shared_ptr<const RowShape>& shape,
                                    int64_t most_rows);
  Fill Join(Batch& batch, const Batch::Member& rows);

  std::vector<std::unique_ptr<Batch>> staged_;
  std::deque<Retry> retries_;
  std::vector<BatchBuffer*> free_buffers_;
  absl::Time next_expiry_ = absl::InfiniteFuture();
  WaitingRoom& room_;
  WaitingFlows& flows_;
};

}  // namespace millrace
