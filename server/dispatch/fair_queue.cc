// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/fair_queue.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/base/check.h"

namespace millrace {
namespace {

// Requests that don't fit what is left of a batch are passed over for smaller ones behind them; so
// many, so that the search stays short. The first of them is the first of the next batch.
constexpr int kMostPassedOver = 8;
// Shapes that are remembered while nobody waits for them.
constexpr size_t kMostIdleGroups = 256;
// Flows whose debts are remembered while they have nothing here.
constexpr int kMostIndebted = 1024;

int64_t Unclaimed(const PendingRequest& request) { return request.rows() - request.rows_claimed; }

bool SameShape(const std::shared_ptr<const RowShape>& a, const std::shared_ptr<const RowShape>& b) {
  return a == b || *a == *b;
}

}  // namespace

int ShapeGroup::tier() const {
  const auto ring =
      std::find_if(rings.begin(), rings.end(), [](const Ring& r) { return r.size > 0; });
  return static_cast<int>(ring - rings.begin());
}

bool ShapeGroup::ComesBefore(const ShapeGroup& other) const {
  if (tier() != other.tier()) return tier() < other.tier();
  return ring(tier()).served < other.ring(tier()).served;
}

FairQueue::FairQueue(int levels) : tiers_(static_cast<size_t>(2 * levels)) {
  unprepared_.rings.resize(tiers_.size());
}

// ---- Entering and leaving ----

void FairQueue::Push(PendingRequest& request) {
  FairLine& line = LineFor(request.flow(), request.tier);
  Enter(request, line);
  line.requests.PushBack(request);
  if (line.requests.front() == &request) Activate(line);
}

void FairQueue::PutBack(PendingRequest& request, double cost) {
  FairLine& line = LineFor(request.flow(), request.tier);
  if (!line.requests.empty()) Deactivate(line);
  Enter(request, line);
  line.requests.PushFront(request);
  line.credit += cost;
  Activate(line);
}

void FairQueue::Refund(const PendingRequest& request, double cost) {
  const auto found = lines_.find({request.flow().id(), request.tier});
  if (found == lines_.end()) return;
  FairLine& line = *found->second;
  line.credit += cost;
  if (line.group == nullptr || line.credit <= 0) return;
  ShapeGroup::Ring& ring = line.group->ring(line.tier);
  line.in_turn = true;  // The turn that it had is its turn again.
  ring.lines.Remove(line);
  ring.lines.PushFront(line);
}

void FairQueue::Prepared(PendingRequest& request) {
  FairLine& line = *request.line;
  if (line.requests.front() != &request) return;
  Deactivate(line);
  Activate(line);
}

void FairQueue::Remove(PendingRequest& request) {
  Leave(request);
  EndDebts();
}

void FairQueue::Enter(PendingRequest& request, FairLine& line) {
  Tier& tier = At(request.tier);
  const int64_t rows = Unclaimed(request);
  request.line = &line;
  tier.rows += rows;
  tier.cost += static_cast<double>(rows) * request.row_cost;
  line.rows += rows;
  rows_ += rows;
  ++tier.size;
  ++size_;
  if (request.deadline != absl::InfiniteFuture() && line.deadlines++ == 0) ++tier.deadlines;
  // Nearly always at the end. Who comes back, from a batch or from the door, is an old one, or one
  // of the newest: it is sought from the end that is nearer in time.
  PendingRequest* behind = nullptr;
  if (!tier.requests.empty() && tier.requests.back()->arrival > request.arrival) {
    behind = tier.requests.front();
    const absl::Duration after_first = request.arrival - behind->arrival;
    if (after_first < tier.requests.back()->arrival - request.arrival) {
      while (behind->arrival <= request.arrival) behind = tier.requests.Next(*behind);
    } else {
      behind = tier.requests.back();
      PendingRequest* before = tier.requests.Previous(*behind);
      while (before != nullptr && before->arrival > request.arrival) {
        behind = std::exchange(before, tier.requests.Previous(*before));
      }
    }
  }
  tier.requests.InsertBefore(behind, request);
}

void FairQueue::Leave(PendingRequest& request) {
  FairLine& line = *request.line;
  Tier& tier = At(request.tier);
  const int64_t rows = Unclaimed(request);
  const bool first = line.requests.front() == &request;
  tier.rows -= rows;
  // What is left of an empty tier are the sums' rounding errors.
  tier.cost = tier.rows == 0 ? 0 : tier.cost - static_cast<double>(rows) * request.row_cost;
  line.rows -= rows;
  rows_ -= rows;
  --tier.size;
  --size_;
  if (request.deadline != absl::InfiniteFuture() && --line.deadlines == 0) --tier.deadlines;
  tier.requests.Remove(request);
  line.requests.Remove(request);
  request.line = nullptr;
  if (!first) return;
  if (!line.requests.empty() && &GroupFor(*line.requests.front()) == line.group) return;
  Deactivate(line);
  if (!line.requests.empty()) return Activate(line);
  line.in_turn = false;
  line.left = tier.served;
  line.credit = std::min(line.credit, 0.0);
  indebted_.PushBack(line);
  ++indebted_count_;
  if (line.credit == 0) {
    Forgive(line);
  } else if (indebted_count_ > kMostIndebted) {
    Forgive(*indebted_.front());
  }
}

void FairQueue::Forgive(FairLine& line) {
  indebted_.Remove(line);
  --indebted_count_;
  lines_.erase({line.flow, line.tier});
  line_pool_.GiveBack(line);
}

void FairQueue::EndDebts() {
  while (size_ == 0 && !indebted_.empty()) Forgive(*indebted_.front());
}

FairLine& FairQueue::LineFor(const Flow& flow, int tier) {
  const auto [entry, is_new] = lines_.try_emplace({flow.id(), tier}, nullptr);
  if (!is_new) {
    FairLine& line = *entry->second;
    if (line.requests.empty()) {
      indebted_.Remove(line);
      --indebted_count_;
      line.credit = std::min(0.0, line.credit + (At(tier).served - line.left) * line.weight);
    }
    return line;
  }
  FairLine& line = line_pool_.Take();
  line.flow = flow.id();
  line.weight = flow.weight();
  line.tier = tier;
  line.credit = 0;
  line.finish = 0;
  entry->second = &line;
  return line;
}

ShapeGroup& FairQueue::GroupFor(const PendingRequest& request) {
  if (!request.prepared()) return unprepared_;
  const std::shared_ptr<const RowShape>& shape = request.row_shape();
  if (last_group_ != nullptr && SameShape(last_group_->shape, shape)) return *last_group_;
  const auto [entry, is_new] = group_of_.try_emplace(*shape, nullptr);
  if (is_new) {
    ForgetIdleGroups();
    entry->second = &group_pool_.Take();
    entry->second->shape = shape;
    entry->second->rings.resize(tiers_.size());
    groups_.push_back(entry->second);
  }
  last_group_ = entry->second;
  return *last_group_;
}

void FairQueue::ForgetIdleGroups() {
  if (groups_.size() < kMostIdleGroups) return;
  std::erase_if(groups_, [this](ShapeGroup* group) {
    if (group->lines > 0) return false;
    // The one that is just being made is not in groups_.
    group_of_.erase(*group->shape);
    group_pool_.GiveBack(*group);
    return true;
  });
}

void FairQueue::Activate(FairLine& line) {
  ShapeGroup& group = GroupFor(*line.requests.front());
  ShapeGroup::Ring& ring = group.ring(line.tier);
  Tier& tier = At(line.tier);
  if (group.lines++ == 0 && &group != &unprepared_) ++shapes_;
  if (ring.size++ == 0) ring.served = std::max({ring.served, tier.served, line.finish});
  ring.weight += line.weight;
  ring.lines.PushBack(line);
  line.group = &group;
  ++tier.lines;
  tier.weight += line.weight;
}

void FairQueue::Deactivate(FairLine& line) {
  ShapeGroup& group = *line.group;
  ShapeGroup::Ring& ring = group.ring(line.tier);
  if (--group.lines == 0 && &group != &unprepared_) --shapes_;
  line.group = nullptr;
  ring.lines.Remove(line);
  ring.weight -= line.weight;
  --ring.size;
  Tier& tier = At(line.tier);
  --tier.lines;
  tier.weight -= line.weight;
}

// ---- Turns ----

ShapeGroup* FairQueue::NextGroup(absl::FunctionRef<bool(const ShapeGroup&)> eligible) {
  ShapeGroup* next = nullptr;
  for (ShapeGroup* const group : groups_) {
    if (group->lines == 0 || (next != nullptr && !group->ComesBefore(*next))) continue;
    if (eligible(*group)) next = group;
  }
  return next;
}

ShapeGroup* FairQueue::GroupOf(const RowShape& shape) {
  const auto found = group_of_.find(shape);
  return found == group_of_.end() || found->second->lines == 0 ? nullptr : found->second;
}

int64_t FairQueue::SmallestPiece(const ShapeGroup& group, int tier, int64_t capacity) {
  int64_t smallest = capacity;
  int looked_at = 0;
  for (const FairLine* line = group.ring(tier).lines.front();
       line != nullptr && looked_at < kMostPassedOver;
       line = group.ring(tier).lines.Next(*line), ++looked_at) {
    smallest = std::min(smallest, Unclaimed(*line->requests.front()));
  }
  return smallest;
}

PendingRequest* FairQueue::Next(ShapeGroup& group, int tier, int64_t room, int64_t capacity,
                                double row_cost) {
  ShapeGroup::Ring& ring = group.ring(tier);
  int passed_over = 0;
  int64_t ended = 0;  // Turns that ended in a row, since those lines were in debt.
  for (FairLine* line = ring.lines.front(); line != nullptr;) {
    // Rounds pass only while somebody is served: where the first don't fit what is left of a batch,
    // those in debt pay nothing off.
    const double turn = line->in_turn ? 0 : row_cost * line->weight;
    if (passed_over > 0 && line->credit + turn <= 0) {
      if (++passed_over == kMostPassedOver) return nullptr;
      line = ring.lines.Next(*line);
      continue;
    }
    if (!line->in_turn) {
      line->in_turn = true;
      line->credit += turn;
    }
    if (line->credit <= 0) {
      FairLine* const after = ring.lines.Next(*line);
      EndTurn(ring, *line);
      if (++ended == ring.size) {
        SkipRounds(ring, row_cost);
        ended = 0;
      }
      line = after != nullptr ? after : ring.lines.front();
      continue;
    }
    ended = 0;
    PendingRequest* const first = line->requests.front();
    if (std::min(Unclaimed(*first), capacity) <= room) return first;
    if (++passed_over == kMostPassedOver) return nullptr;
    line = ring.lines.Next(*line);
  }
  return nullptr;
}

void FairQueue::EndTurn(ShapeGroup::Ring& ring, FairLine& line) {
  line.in_turn = false;
  ring.lines.Remove(line);
  ring.lines.PushBack(line);
}

// Every line of the ring is in debt: gives all of them the rounds after which the first isn't.
void FairQueue::SkipRounds(ShapeGroup::Ring& ring, double row_cost) {
  double rounds = HUGE_VAL;
  for (FairLine* line = ring.lines.front(); line != nullptr; line = ring.lines.Next(*line)) {
    rounds = std::min(rounds, std::floor(-line->credit / (row_cost * line->weight)));
  }
  for (FairLine* line = ring.lines.front(); line != nullptr; line = ring.lines.Next(*line)) {
    line->credit += rounds * row_cost * line->weight;
  }
}

void FairQueue::Claim(PendingRequest& request, int64_t rows, double cost) {
  FairLine& line = *request.line;
  ShapeGroup::Ring& ring = line.group->ring(line.tier);
  Tier& tier = At(line.tier);
  MILLRACE_CHECK(line.requests.front() == &request, "Rows are claimed in the order of a flow.");
  MILLRACE_CHECK(rows <= Unclaimed(request), "A row has one place.");
  tier.served = std::max(tier.served, ring.served);
  ring.served += cost / static_cast<double>(ring.weight);
  line.credit -= cost;
  line.finish = ring.served;
  if (line.in_turn && line.credit <= 0) EndTurn(ring, line);
  const bool all = rows == Unclaimed(request);
  if (all) Leave(request);
  request.rows_claimed += rows;
  if (all) return EndDebts();
  tier.rows -= rows;
  tier.cost -= static_cast<double>(rows) * request.row_cost;
  line.rows -= rows;
  rows_ -= rows;
}

// ---- What is there ----

PendingRequest* FairQueue::Overdue(absl::Time time) const {
  PendingRequest* oldest = nullptr;
  bool behind = false;
  for (const Tier& tier : tiers_) {
    PendingRequest* const first = tier.requests.front();
    if (behind && first != nullptr && first->arrival < time &&
        (oldest == nullptr || first->arrival < oldest->arrival)) {
      oldest = first;
    }
    behind |= first != nullptr;
  }
  return oldest;
}

absl::Span<PendingRequest* const> FairQueue::TurnOutFor(const Flow& flow, int64_t rows, int level,
                                                        int64_t missing) {
  turned_out_.clear();
  const Tier& first = At(TierOf(level, false));
  const Tier& delayed = At(TierOf(level, true));
  if (first.size + delayed.size == first.lines + delayed.lines) return {};  // One each.
  const int64_t own = RowsOf(flow, level);
  const double wanted = static_cast<double>(own + rows) / flow.weight();
  const int64_t weight = first.weight + delayed.weight + (own == 0 ? flow.weight() : 0);
  const double share = static_cast<double>(this->rows(level)) / static_cast<double>(weight);
  if (own + rows > 1 && wanted > share) return {};

  candidates_.clear();
  const auto consider = [&](PendingRequest* last, double left) {
    if (last == nullptr || last->rows_claimed > 0) return;
    left -= static_cast<double>(last->rows()) / last->line->weight;
    if (left >= wanted) candidates_.push_back({last, left});
  };
  const auto has_less = [](const Candidate& a, const Candidate& b) { return a.left < b.left; };
  const auto consider_lines = [&](const ShapeGroup& group) {
    for (const bool is_delayed : {false, true}) {
      const ShapeGroup::Ring& ring = group.ring(TierOf(level, is_delayed));
      for (FairLine* line = ring.lines.front(); line != nullptr; line = ring.lines.Next(*line)) {
        if (line->flow == flow.id()) continue;
        consider(line->requests.back(), static_cast<double>(line->rows) / line->weight);
      }
    }
  };
  for (const ShapeGroup* const group : groups_) consider_lines(*group);
  consider_lines(unprepared_);
  std::make_heap(candidates_.begin(), candidates_.end(), has_less);
  while (missing > 0 && !candidates_.empty()) {
    std::pop_heap(candidates_.begin(), candidates_.end(), has_less);
    const Candidate most = candidates_.back();
    candidates_.pop_back();
    turned_out_.push_back(most.last);
    missing -= most.last->rows();
    const size_t before = candidates_.size();
    consider(most.last->line->requests.Previous(*most.last), most.left);
    if (candidates_.size() > before) {
      std::push_heap(candidates_.begin(), candidates_.end(), has_less);
    }
  }
  if (missing > 0) turned_out_.clear();
  return turned_out_;
}

template <typename T>
T FairQueue::SumUpTo(int level, T Tier::*what) const {
  T sum = 0;
  for (int tier = 0; tier < 2 * level; ++tier) sum += At(tier).*what;
  return sum;
}

int64_t FairQueue::LinesUpTo(int level) const { return SumUpTo(level, &Tier::lines); }
int64_t FairQueue::RowsUpTo(int level) const { return SumUpTo(level, &Tier::rows); }
double FairQueue::CostUpTo(int level) const { return SumUpTo(level, &Tier::cost); }

int64_t FairQueue::LinesWithDeadlines(int level) const {
  return At(TierOf(level, false)).deadlines + At(TierOf(level, true)).deadlines;
}

int64_t FairQueue::RowsOf(const Flow& flow, int level) const {
  int64_t rows = 0;
  for (const bool delayed : {false, true}) {
    const auto line = lines_.find({flow.id(), TierOf(level, delayed)});
    if (line != lines_.end()) rows += line->second->rows;
  }
  return rows;
}

int FairQueue::highest_level() const {
  int tier = 0;
  while (At(tier).lines == 0) ++tier;
  return LevelOf(tier);
}

absl::Time FairQueue::oldest_arrival() const {
  absl::Time oldest = absl::InfiniteFuture();
  for (const Tier& tier : tiers_) {
    if (!tier.requests.empty()) oldest = std::min(oldest, tier.requests.front()->arrival);
  }
  return oldest;
}

}  // namespace millrace
