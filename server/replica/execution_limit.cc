// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/execution_limit.h"

#include <algorithm>

namespace millrace {
namespace {

constexpr int kFirstRuns = 2;
constexpr int kTimesTheLongest = 20;
constexpr absl::Duration kLeast = absl::Seconds(10);
// A part of a batch is given this much at least, and twice the longest run: most of a run's time
// need not depend on its rows.
constexpr absl::Duration kLeastOfAPart = absl::Seconds(1);
constexpr int kTimesTheLongestForAPart = 2;
// Shapes that are remembered; one that is forgotten has its first runs again.
constexpr size_t kMostShapes = 1024;

}  // namespace

absl::Duration ExecutionLimit::For(const RowShape& shape, double share) const {
  MutexLock lock(mutex_);
  const auto runs = runs_.find(shape);
  if (runs == runs_.end() || runs->second < kFirstRuns) return options_.first_runs;
  const absl::Duration whole = Whole();
  const absl::Duration least = std::max(kLeastOfAPart, kTimesTheLongestForAPart * longest_);
  return std::min(whole, std::max(share * whole, least));
}

absl::Duration ExecutionLimit::Usual() const {
  MutexLock lock(mutex_);
  return Whole();
}

absl::Duration ExecutionLimit::Whole() const {
  if (options_.configured != absl::InfiniteDuration()) return options_.configured;
  return std::max(kLeast, kTimesTheLongest * longest_);
}

void ExecutionLimit::Ran(const RowShape& shape, absl::Duration took) {
  MutexLock lock(mutex_);
  if (runs_.size() >= kMostShapes && !runs_.contains(shape)) runs_.clear();
  int& runs = runs_[shape];
  if (runs >= kFirstRuns) {
    longest_ = std::max(longest_, took);
  } else {
    ++runs;
  }
}

}  // namespace millrace
