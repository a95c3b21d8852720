// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/cost_table.h"

#include <algorithm>

namespace millrace {
namespace {

// Shapes that are remembered.
constexpr size_t kMostShapes = 256;
// A prediction is fresh for so long, or for so many times what it predicts.
constexpr absl::Duration kFreshFor = absl::Seconds(1);
constexpr int kFreshForBatches = 3;

}  // namespace

void CostTable::Expect(const RowShape& shape, ReplicaKind kind, int64_t rows, absl::Duration took) {
  Entry& entry = EntryFor(shape);
  if (entry.observed == absl::InfinitePast()) {
    entry.models[static_cast<size_t>(kind)].Observe(rows, took);
  }
}

void CostTable::Observe(const RowShape& shape, ReplicaKind kind, int64_t rows, absl::Duration took,
                        absl::Time now) {
  Entry& entry = EntryFor(shape);
  entry.models[static_cast<size_t>(kind)].Observe(rows, took);
  entry.observed = now;
}

CostTable::Entry& CostTable::EntryFor(const RowShape& shape) {
  std::unique_ptr<Entry>& entry = entries_[shape];
  if (entry == nullptr) {
    entry = std::make_unique<Entry>();
    entry->shape = std::make_shared<const RowShape>(shape);
    if (entries_.size() > kMostShapes) Forget(*entry);
  }
  entry->used = ++observations_;
  latest_ = entry.get();
  return *entry;
}

void CostTable::Forget(const Entry& but) {
  auto oldest = entries_.end();
  for (auto other = entries_.begin(); other != entries_.end(); ++other) {
    if (other->second.get() == &but) continue;
    if (oldest == entries_.end() || other->second->used < oldest->second->used) oldest = other;
  }
  if (found_ == oldest->second.get()) found_ = nullptr;
  entries_.erase(oldest);
}

const CostTable::Entry* CostTable::Find(const RowShape& shape) const {
  if (found_ != nullptr && *found_->shape == shape) return found_;
  const auto found = entries_.find(shape);
  if (found == entries_.end()) return nullptr;
  found_ = found->second.get();
  return found_;
}

const CostModel* CostTable::Find(const RowShape& shape, ReplicaKind kind) const {
  const Entry* const entry = Find(shape);
  if (entry == nullptr || !entry->models[static_cast<size_t>(kind)].known()) return nullptr;
  return &entry->models[static_cast<size_t>(kind)];
}

absl::Duration CostTable::Predict(const RowShape& shape, int64_t rows) const {
  const Entry* const entry = Find(shape);
  if (entry == nullptr) return absl::ZeroDuration();
  absl::Duration least = absl::InfiniteDuration();
  for (const CostModel& model : entry->models) {
    if (model.known()) least = std::min(least, model.Predict(rows));
  }
  return least;
}

double CostTable::RowCost(const RowShape& shape, int64_t capacity) const {
  constexpr double kLeast = 1;
  const double rows = static_cast<double>(std::max<int64_t>(1, capacity));
  // A new shape costs what the one before it did, until it has run.
  const bool known = Find(shape) != nullptr || latest_ == nullptr;
  const absl::Duration batch = Predict(known ? shape : *latest_->shape, capacity);
  return std::max(kLeast, absl::ToDoubleNanoseconds(batch) / rows);
}

bool CostTable::IsFresh(const RowShape& shape, absl::Time now) const {
  const Entry* const entry = Find(shape);
  return entry != nullptr &&
         now - entry->observed < std::max(kFreshFor, kFreshForBatches * Predict(shape, 1));
}

std::vector<CostTable::Entry> CostTable::Latest() const {
  std::vector<Entry> latest;
  for (const auto& [shape, entry] : entries_) latest.push_back(*entry);
  std::sort(latest.begin(), latest.end(),
            [](const Entry& a, const Entry& b) { return a.used > b.used; });
  return latest;
}

}  // namespace millrace
