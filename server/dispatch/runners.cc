// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/runners.h"

#include <algorithm>
#include <limits>

namespace millrace {

void Runners::AddIdle(BatchRunner* runner, absl::Time now) {
  const auto retires = [runner](const Busy& busy) { return busy.runner == runner && busy.retires; };
  if (std::none_of(busy_.begin(), busy_.end(), retires)) idle_.push_back(runner);
  std::erase_if(busy_, [runner](const Busy& busy) { return busy.runner == runner; });
  Count(now);
}

bool Runners::RemoveIdle(BatchRunner* runner, absl::Time now) {
  if (std::erase(idle_, runner) == 0) return false;
  Count(now);
  return true;
}

bool Runners::Retire(BatchRunner* runner, absl::Time now) {
  for (Busy& busy : busy_) {
    if (busy.runner == runner) busy.retires = true;
  }
  return RemoveIdle(runner, now);
}

void Runners::Start(BatchRunner* runner, absl::Time until, absl::Time now) {
  std::erase(idle_, runner);
  busy_.push_back({runner, until});
  Count(now);
}

void Runners::RemoveBusy(const BatchRunner* runner, absl::Time now) {
  std::erase_if(busy_, [runner](const Busy& busy) { return busy.runner == runner; });
  Count(now);
}

BatchRunner* Runners::Next() const {
  if (idle_.empty()) return nullptr;
  const auto free = std::find_if(idle_.rbegin(), idle_.rend(), [](const BatchRunner* runner) {
    return runner->lease_cores() == 0;
  });
  return free == idle_.rend() ? idle_.back() : *free;
}

int Runners::all(ReplicaKind kind) const {
  const auto idle = std::count_if(idle_.begin(), idle_.end(),
                                  [&](const BatchRunner* one) { return one->kind() == kind; });
  const auto busy = std::count_if(busy_.begin(), busy_.end(),
                                  [&](const Busy& one) { return one.runner->kind() == kind; });
  return static_cast<int>(idle + busy);
}

int Runners::at_a_time(ReplicaKind kind, int cores) const {
  const int count = all(kind);
  if (count == 0 || kind != ReplicaKind::kCpu) return count;
  int narrowest = std::numeric_limits<int>::max();
  for (const BatchRunner* one : idle_) {
    if (one->kind() == kind) narrowest = std::min(narrowest, one->lease_cores());
  }
  for (const Busy& one : busy_) {
    if (one.runner->kind() == kind) narrowest = std::min(narrowest, one.runner->lease_cores());
  }
  return std::clamp(cores / narrowest, 1, count);
}

absl::Duration Runners::UntilFirstIdle(absl::Time now) const {
  if (!idle_.empty() || busy_.empty()) return absl::ZeroDuration();
  absl::Time first = absl::InfiniteFuture();
  for (const Busy& busy : busy_) first = std::min(first, busy.until);
  return std::max(absl::ZeroDuration(), first - now);
}

absl::Duration Runners::UntilAllIdle(absl::Time now) const {
  absl::Duration sum;
  for (const Busy& busy : busy_) sum += std::max(absl::ZeroDuration(), busy.until - now);
  return sum;
}

void Runners::Count(absl::Time now) {
  utilisation_.Set(now,
                   all() == 0 ? 0 : static_cast<double>(busy_.size()) / static_cast<double>(all()));
}

}  // namespace millrace
