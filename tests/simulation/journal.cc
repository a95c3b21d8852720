// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/journal.h"

#include <algorithm>
#include <cmath>

#include "server/base/check.h"

namespace millrace {

uint64_t Journal::Enter(const Entry& entry, Listener* listener) {
  entries_.push_back(entry);
  listeners_.push_back(listener);
  return entries_.size() - 1;
}

void Journal::Deliver(uint64_t place, Response&& response) {
  Entry& entry = entries_[place];
  MILLRACE_CHECK(entry.answered == absl::InfiniteFuture(), "A request is answered once.");
  entry.answered = clock_.Now();
  entry.code = response.status.code();
  ++answers_;
  const Entry answered = entry;  // The listener may enter requests.
  listeners_[place]->OnAnswer(answered);
}

Summary Summarise(const std::vector<Entry>& entries, absl::FunctionRef<bool(const Entry&)> picks) {
  Summary summary;
  std::vector<double> latencies;
  for (const Entry& entry : entries) {
    if (!picks(entry)) continue;
    ++summary.requests;
    if (entry.good()) ++summary.good;
    if (entry.ok()) latencies.push_back(absl::ToDoubleMilliseconds(entry.latency()));
  }
  summary.ok = latencies.size();
  if (latencies.empty()) return summary;
  std::sort(latencies.begin(), latencies.end());
  // The smallest latency that so large a share doesn't exceed.
  const auto quantile = [&](double share) {
    const double rank = std::ceil(share * static_cast<double>(latencies.size()));
    return latencies[static_cast<size_t>(std::max(1.0, rank)) - 1];
  };
  double sum = 0;
  for (const double latency : latencies) sum += latency;
  summary.mean_ms = sum / static_cast<double>(latencies.size());
  summary.p50_ms = quantile(0.5);
  summary.p99_ms = quantile(0.99);
  summary.most_ms = latencies.back();
  return summary;
}

double JainIndex(const std::vector<double>& shares) {
  double sum = 0;
  double squares = 0;
  for (const double share : shares) {
    sum += share;
    squares += share * share;
  }
  return squares == 0 ? 0 : sum * sum / (static_cast<double>(shares.size()) * squares);
}

}  // namespace millrace
