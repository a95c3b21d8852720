// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/stream_metrics.h"

#include <algorithm>
#include <utility>

namespace millrace {
namespace {

constexpr char kUnnamed[] = "unnamed";
constexpr char kOther[] = "other";

}  // namespace

std::shared_ptr<StreamCounts> StreamMetrics::Open(absl::string_view name) {
  if (name.empty() || name == kUnnamed) return unnamed_;
  if (name == kOther) return other_;
  MutexLock lock(mutex_);
  if (const auto found = names_.find(name); found != names_.end()) return found->second;
  if (names_.size() >= most_names_) {
    const auto left = std::find_if(names_.begin(), names_.end(),
                                   [](const auto& entry) { return entry.second.use_count() == 1; });
    if (left == names_.end()) return other_;
    names_.erase(left);
  }
  return names_.emplace(std::string(name), std::make_shared<StreamCounts>()).first->second;
}

std::vector<Sample> StreamMetrics::Collect() const {
  std::vector<Sample> samples;
  const auto add = [&](const std::string& name, const StreamCounts& counts) {
    const uint64_t drops = counts.shards_.Sum([](const auto& s) { return s.drops.value(); });
    const uint64_t answers = counts.shards_.Sum([](const auto& s) { return s.answers.value(); });
    HistogramValue age;
    counts.shards_.ForEach([&](const auto& s) { s.age.AddTo(age, 1e-9); });
    samples.push_back({&kStreamDropsTotal, {name}, static_cast<double>(drops)});
    samples.push_back({&kStreamAnswersTotal, {name}, static_cast<double>(answers)});
    samples.push_back({&kStreamAge, {name}, std::move(age)});
  };
  add(kUnnamed, *unnamed_);
  add(kOther, *other_);
  MutexLock lock(mutex_);  // Shares of names are handed out under it alone.
  for (const auto& [name, counts] : names_) add(name, *counts);
  return samples;
}

}  // namespace millrace
