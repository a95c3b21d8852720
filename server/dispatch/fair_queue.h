// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/base/intrusive_list.h"
#include "server/base/pool.h"
#include "server/dispatch/pending_request.h"
#include "server/inference/row_shape.h"

namespace millrace {

struct ShapeGroup;

// The requests of one flow and one tier that wait, in their order, and the flow's turn.
struct FairLine {
  uint64_t flow = 0;
  int weight = 1;
  int tier = 0;
  IntrusiveList<PendingRequest, &PendingRequest::in_line> requests;
  int64_t rows = 0;       // That wait.
  int64_t deadlines = 0;  // Requests that have one.
  double credit = 0;  // What it may use before its turn is over; below 0: what it has used ahead.
  bool in_turn = false;
  double finish = 0;            // What its ring had been served when it was served last.
  double left = 0;              // What its tier had been served when it became empty.
  ShapeGroup* group = nullptr;  // Of its first request.
  ListHook<FairLine> in_ring;   // Of its group, or of the queue's indebted lines.
};

// The lines whose first requests have one row shape, hence may share a batch.
struct ShapeGroup {
  struct Ring {
    IntrusiveList<FairLine, &FairLine::in_ring> lines;
    int64_t size = 0;
    int64_t weight = 0;  // Of its lines.
    double served = 0;   // Cost served per weight: whose is least goes next.
  };

  std::shared_ptr<const RowShape> shape;
  std::vector<Ring> rings;  // By tier.
  int64_t lines = 0;

  // The highest tier in which anybody waits. REQUIRES: lines > 0.
  int tier() const;
  const Ring& ring(int tier) const { return rings[static_cast<size_t>(tier)]; }
  Ring& ring(int tier) { return rings[static_cast<size_t>(tier)]; }
  // Whether its turn is before another group's: it has a higher tier, or had less there.
  bool ComesBefore(const ShapeGroup& other) const;
};

// Who is next. Requests wait in a line per flow, in their order; lines take turns by deficit round
// robin (Shreedhar and Varghese, SIGCOMM 1995) whose cost is the predicted time of the rows, so
// flows get service in proportion to their weights whatever they ask for. Tiers are served
// strictly one before the other: two per priority level, the second for its delayed requests.
// Shapes take turns in proportion to the weights of the flows that wait for them. Allocates
// nothing once it has been as full. Holds no reference: a request outlives its wait.
// Thread-compatible: the dispatcher guards it.
//
// A line whose first request isn't prepared waits in a group of its own, from which nobody is next.
//
// Invariants:
//  1. Within a line, rows are claimed in order.
//  2. A line that has used more than its share pays for it before it is served again, also when it
//     empties in between: with the share of it that goes to others meanwhile. Debts end when nobody
//     waits at all.
class FairQueue {
 public:
  explicit FairQueue(int levels);

  // The tier of a priority level, 1 being the highest.
  static int TierOf(int level, bool delayed) { return 2 * (level - 1) + (delayed ? 1 : 0); }
  static int LevelOf(int tier) { return tier / 2 + 1; }

  // Enters a request at the end of its flow's line in tier `request.tier`.
  void Push(PendingRequest& request);

  // Enters it at the front: rows that it had claimed are given back, and so is their cost.
  void PutBack(PendingRequest& request, double cost);

  // Gives the cost of rows back to the flow of a request that has left, for rows that never ran.
  void Refund(const PendingRequest& request, double cost);

  // Says that a request in the queue is prepared now.
  void Prepared(PendingRequest& request);

  // Takes a request out, wherever it stands.
  void Remove(PendingRequest& request);

  // The group to be served next among those that are `eligible`: of the highest tier, and of these
  // the one that had least. Null where there is none.
  ShapeGroup* NextGroup(absl::FunctionRef<bool(const ShapeGroup&)> eligible);

  // The group of those that wait and whose first in line have this shape; null where there are
  // none.
  ShapeGroup* GroupOf(const RowShape& shape);

  // The request in a tier of `group` whose turn it is, of those with a piece of at most `room`
  // rows; a piece is what is unclaimed of it, at most `capacity` rows. `row_cost` > 0 is what a row
  // costs. Null where nothing fits.
  PendingRequest* Next(ShapeGroup& group, int tier, int64_t room, int64_t capacity,
                       double row_cost);

  // The rows of the smallest piece among those that Next() looks at. REQUIRES: the tier has some.
  static int64_t SmallestPiece(const ShapeGroup& group, int tier, int64_t capacity);

  // Says that `rows` more rows of the first request of a line have found a place, and charges the
  // line. The request leaves when all have.
  void Claim(PendingRequest& request, int64_t rows, double cost);

  // What the ring of a request that waits has been served; see ShapeGroup::Ring.
  static double ServedOf(const PendingRequest& request) {
    return request.line->group->ring(request.tier).served;
  }

  // The first request of the line in which `request` waits.
  static PendingRequest& FirstInLine(const PendingRequest& request) {
    return *request.line->requests.front();
  }

  // The request that has waited longest among those behind the highest tier in use, where it came
  // before `time`; else null.
  PendingRequest* Overdue(absl::Time time) const;

  // Who is to be turned out of `level` for a request of `flow` with `rows` rows, so that at least
  // `missing` > 0 rows become free: the last of the lines that wait for most, weighed, such that
  // afterwards each still has no less than `flow`. Empty where they don't suffice: every flow has
  // its share, or `flow` has it. Valid until the next call.
  absl::Span<PendingRequest* const> TurnOutFor(const Flow& flow, int64_t rows, int level,
                                               int64_t missing);

  bool empty() const { return size_ == 0; }
  int tiers() const { return static_cast<int>(tiers_.size()); }
  // How many shapes wait.
  int shapes() const { return shapes_; }
  int64_t size() const { return size_; }
  // Rows that wait.
  int64_t rows() const { return rows_; }
  int64_t rows(int level) const { return tiers_[2 * level - 2].rows + tiers_[2 * level - 1].rows; }
  // How many lines wait in the tiers up to that of `level`, and their rows.
  int64_t LinesUpTo(int level) const;
  int64_t RowsUpTo(int level) const;
  // What these rows cost, in nanoseconds.
  double CostUpTo(int level) const;
  // How many lines of a level have requests with deadlines.
  int64_t LinesWithDeadlines(int level) const;
  // Rows that a flow has waiting at a level.
  int64_t RowsOf(const Flow& flow, int level) const;
  // The highest level at which anybody waits. REQUIRES: !empty().
  int highest_level() const;
  // When the request arrived that has waited longest; InfiniteFuture() where nobody waits.
  absl::Time oldest_arrival() const;

 private:
  struct Tier {
    IntrusiveList<PendingRequest, &PendingRequest::by_arrival> requests;
    int64_t size = 0;
    int64_t rows = 0;
    double cost = 0;  // Of the rows.
    int64_t lines = 0;
    int64_t weight = 0;     // Of the lines.
    int64_t deadlines = 0;  // Lines that have requests with deadlines.
    double served = 0;      // What the ring that was served last had been served before.
  };
  using LineKey = std::pair<uint64_t, int>;  // Flow and tier.

  Tier& At(int tier) { return tiers_[static_cast<size_t>(tier)]; }
  const Tier& At(int tier) const { return tiers_[static_cast<size_t>(tier)]; }
  template <typename T>
  T SumUpTo(int level, T Tier::*what) const;
  FairLine& LineFor(const Flow& flow, int tier);
  ShapeGroup& GroupFor(const PendingRequest& request);
  void ForgetIdleGroups();
  // Enters and leaves the ring of its first request's shape.
  void Activate(FairLine& line);
  void Deactivate(FairLine& line);
  void Enter(PendingRequest& request, FairLine& line);
  // Takes a request out of its line, which goes on with what is behind it.
  void Leave(PendingRequest& request);
  // Forgets an empty line.
  void Forgive(FairLine& line);
  void EndDebts();
  static void EndTurn(ShapeGroup::Ring& ring, FairLine& line);
  static void SkipRounds(ShapeGroup::Ring& ring, double row_cost);

  std::vector<Tier> tiers_;
  int64_t size_ = 0;
  int64_t rows_ = 0;
  int shapes_ = 0;

  Pool<FairLine> line_pool_;
  // Empty lines that have used more than their share, the latest last.
  IntrusiveList<FairLine, &FairLine::in_ring> indebted_;
  int indebted_count_ = 0;
  absl::flat_hash_map<LineKey, FairLine*> lines_;

  Pool<ShapeGroup> group_pool_;
  std::vector<ShapeGroup*> groups_;  // All that were used lately.
  absl::flat_hash_map<RowShape, ShapeGroup*> group_of_;
  ShapeGroup* last_group_ = nullptr;
  ShapeGroup unprepared_;  // Has no shape, and is none of groups_.

  // Scratch of TurnOutFor().
  struct Candidate {
    PendingRequest* last;
    double left;  // Rows per weight that its line waits for without it and those behind it.
  };
  std::vector<Candidate> candidates_;
  std::vector<PendingRequest*> turned_out_;
};

}  // namespace millrace
