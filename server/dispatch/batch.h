// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "server/dispatch/pending_request.h"
#include "server/inference/batch_buffer.h"

namespace millrace {

// Rows of requests gathered in a buffer, to be run together. The dispatcher guards it while it is
// staged; from Run() to Finish() it is its replica's. Thread-compatible.
class Batch {
 public:
  // Some rows of a request, and where in the batch they are.
  struct Member {
    std::shared_ptr<PendingRequest> request;  // Null once it has vacated its rows.
    int64_t first_row = 0;                    // Of the request.
    int64_t rows = 0;
    int64_t batch_row = 0;
    bool filling = false;
    absl::Time fill_begin = absl::InfinitePast();  // When its rows were written.
    absl::Time fill_end = absl::InfinitePast();

    bool vacated() const { return request == nullptr; }
  };

  // `buffer` is open for `capacity` rows of `shape`.
  Batch(BatchBuffer* buffer, std::shared_ptr<const RowShape> shape, int64_t capacity)
      : buffer_(buffer), shape_(std::move(shape)), capacity_(capacity) {}

  BatchBuffer* buffer() const { return buffer_; }
  const RowShape& shape() const { return *shape_; }
  const std::vector<Member>& members() const { return members_; }
  // Rows claimed and not vacated.
  int64_t rows() const { return rows_; }
  // Members whose rows are being written.
  int filling() const { return filling_; }
  // Nobody may join any more.
  bool closed() const { return closed_ || rows_ == capacity_; }
  void Close() { closed_ = true; }
  // Of the members who haven't vacated their rows.
  struct Summary {
    absl::Time oldest_arrival = absl::InfiniteFuture();
    absl::Time next_expiry = absl::InfiniteFuture();  // As it was when they joined.
    absl::Time next_deadline = absl::InfiniteFuture();
    int highest_tier = std::numeric_limits<int>::max();  // See FairQueue.
    int lowest_tier = -1;

    void Add(const PendingRequest& request);
  };
  const Summary& summary() const;

  int64_t capacity() const { return capacity_; }
  // How many of a request's `left` rows go into one batch: all, or as many as a batch can hold.
  int64_t PieceOf(int64_t left) const { return std::min(left, capacity_); }

  // The most rows that may join together.
  int64_t Room() const;
  bool HasRoom(int64_t rows) const { return rows <= Room(); }

  // Claims rows for the request's rows from `first_row` on and returns the member's index, to be
  // filled and then marked by Filled(). REQUIRES: HasRoom(rows).
  size_t Claim(std::shared_ptr<PendingRequest> request, int64_t first_row, int64_t rows);

  // Writes a member's rows into the buffer. The one method that needs no guard.
  absl::Status Fill(const PendingRequest& request, int64_t first_row, int64_t rows,
                    int64_t batch_row);

  // Marks a member as written, which was done at `end` and took so long.
  void Filled(size_t member, absl::Duration took, absl::Time end = absl::InfinitePast());

  // Lets go of a member's request. Its rows are a hole, to be claimed again, once nobody writes
  // into them.
  void Vacate(size_t member);

  // Moves rows into the holes that vacated members left and tells the buffer how many there are.
  // REQUIRES: filling() == 0.
  void Seal();

  absl::Duration fill_time() const { return fill_time_; }
  absl::Time started;    // Set when a replica takes it.
  bool retry = false;    // Gathered again after a run that failed.
  bool in_vain = false;  // Rows were put back for a request that found no room all the same.
  double turn = 0;       // What its shape had been served when it was opened.
  double row_cost = 1;   // What its rows are charged, in nanoseconds.

 private:
  struct Hole {
    int64_t row;
    int64_t rows;
  };

  // A member that has vacated its rows leaves a hole and its place in `members_`. Holes that touch
  // become one; the last rows are no hole, but never claimed.
  void Leave(const Member& member);

  BatchBuffer* const buffer_;
  const std::shared_ptr<const RowShape> shape_;
  const int64_t capacity_;
  std::vector<Member> members_;
  int vacant_ = 0;  // Places in `members_` that another may take.
  std::vector<Hole> holes_;
  int64_t rows_ = 0;
  int64_t end_row_ = 0;  // Rows from here on were never claimed.
  int filling_ = 0;
  bool closed_ = false;
  mutable Summary summary_;
  mutable bool summary_is_old_ = false;  // Somebody has left since.
  absl::Duration fill_time_;
};

}  // namespace millrace
