// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/return_predictor.h"

#include <algorithm>
#include <cmath>

namespace millrace {
namespace {

constexpr size_t kMostHabits = 4096;
// How fast a habit is learnt, and how much of its spread is allowed for.
constexpr double kLearn = 0.2;
constexpr double kMargin = 1.3;
constexpr double kSpreads = 2;
// A habit is one where the spread is small beside it, or too small to matter beside the setup: what
// comes by chance, and not because an answer went, has a spread as large as its mean.
constexpr double kSteady = 0.35;
constexpr double kShort = 0.1;
// Who has been silent for so long is thinking about something else.
constexpr absl::Duration kLongSilence = absl::Seconds(1);
// How far back, in setups, and at how many flows is looked for those about to return.
constexpr int kLongAgo = 3;
constexpr int kMostLookedAt = 256;

}  // namespace

absl::Time ReturnPredictor::Habit::ReturnsBy() const {
  if (think_ns < 0) return absl::InfiniteFuture();
  return answered + absl::Nanoseconds(kMargin * think_ns + kSpreads * spread_ns);
}

void ReturnPredictor::Answered(uint64_t flow, absl::Time now) {
  if (habits_.size() >= kMostHabits) Forget(now);
  std::unique_ptr<Habit>& habit = habits_[flow];
  if (habit == nullptr) habit = std::make_unique<Habit>();
  if (habit->owed++ > 0) owing_.Remove(*habit);
  habit->answered = now;
  owing_.PushBack(*habit);
}

void ReturnPredictor::Arrived(uint64_t flow, absl::Time now) {
  const auto found = habits_.find(flow);
  if (found == habits_.end() || found->second->owed == 0) return;
  Habit& habit = *found->second;
  if (--habit.owed == 0) owing_.Remove(habit);
  const double think = absl::ToDoubleNanoseconds(now - habit.answered);
  if (habit.think_ns < 0) {
    habit.think_ns = think;
    return;
  }
  habit.spread_ns += kLearn * (std::abs(think - habit.think_ns) - habit.spread_ns);
  habit.think_ns += kLearn * (think - habit.think_ns);
}

void ReturnPredictor::Forget(absl::Time now) {
  const auto forget = [this](Habit& habit) {
    if (habit.owed > 0) owing_.Remove(habit);
    return true;
  };
  absl::erase_if(habits_, [&](auto& entry) {
    return entry.second->answered + kLongSilence < now && forget(*entry.second);
  });
  if (habits_.size() < kMostHabits) return;
  absl::erase_if(habits_, [&](auto& entry) { return forget(*entry.second); });
}

absl::Time ReturnPredictor::HoldUntil(absl::Time now, int64_t rows, int64_t most_rows, int sharing,
                                      absl::Duration setup) const {
  returns_.clear();
  const double setup_ns = absl::ToDoubleNanoseconds(setup);
  int64_t all = rows;
  int looked_at = 0;
  for (const Habit* habit = owing_.back(); habit != nullptr; habit = owing_.Previous(*habit)) {
    // Who was answered before that thinks for longer than a setup, or would be back.
    if (habit->answered < now - kLongAgo * setup || ++looked_at > kMostLookedAt) break;
    if (habit->spread_ns > std::max(kSteady * habit->think_ns, kShort * setup_ns)) continue;
    const absl::Time by = habit->ReturnsBy();
    if (by < now || by > now + setup) continue;
    returns_.emplace_back(by, habit->owed);
    all += habit->owed;
  }
  std::sort(returns_.begin(), returns_.end());
  most_rows = std::min(most_rows, (all + sharing - 1) / sharing);
  if (rows >= most_rows) return absl::InfinitePast();
  absl::Time best = absl::InfinitePast();
  absl::Duration best_gain = absl::ZeroDuration();
  int64_t more = 0;
  for (const auto& [by, owed] : returns_) {
    more += owed;
    const int64_t counted = std::min(more, most_rows - rows);
    const absl::Duration gain = counted * setup - rows * (by - now);
    if (gain > best_gain) {
      best_gain = gain;
      best = by;
    }
    if (more >= most_rows - rows) break;
  }
  return best;
}

}  // namespace millrace
