// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/candidates.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// 1, 2, 4, … and `most`, descending.
template <typename T>
std::vector<T> PowersOfTwoUpTo(T most) {
  std::vector<T> values;
  for (T value = 1; value < most; value *= 2) values.push_back(value);
  values.push_back(most);
  std::reverse(values.begin(), values.end());
  return values;
}

Candidate Layout(int replicas, int threads, const ExecutionMode& mode) {
  return {.replicas = replicas, .threads = threads, .most_rows = 0, .mode = mode};
}

}  // namespace

std::vector<Candidate> Layouts(const TuningSpace& space, const ExecutionMode& mode) {
  std::vector<int> widths = PowersOfTwoUpTo(space.cores);
  std::reverse(widths.begin(), widths.end());
  if (space.threads) widths = {*space.threads};
  std::vector<Candidate> layouts;
  for (const int threads : widths) {
    std::vector<int> counts = PowersOfTwoUpTo(std::max(1, space.cores / threads));
    if (space.replicas) counts = {*space.replicas};
    for (const int replicas : counts) layouts.push_back(Layout(replicas, threads, mode));
  }
  return layouts;
}

std::vector<Candidate> WithBatchSizes(const std::vector<Candidate>& layouts,
                                      int64_t max_batch_size) {
  std::vector<Candidate> candidates;
  for (const int64_t rows : PowersOfTwoUpTo(std::max<int64_t>(1, max_batch_size))) {
    for (const Candidate& layout : layouts) {
      candidates.push_back(layout);
      if (rows < max_batch_size) candidates.back().most_rows = rows;
    }
  }
  return candidates;
}

std::vector<Candidate> WithWaiting(const std::vector<Candidate>& layouts) {
  std::vector<Candidate> candidates;
  for (const Candidate& layout : layouts) {
    candidates.push_back(layout);
    if (layout.threads == 1) continue;
    candidates.push_back(layout);
    candidates.back().mode->wait = ThreadWait::kActive;
  }
  return candidates;
}

std::vector<Candidate> Oversubscribed(const TuningSpace& space, const ExecutionMode& mode) {
  std::vector<Candidate> layouts;
  for (const int replicas : {1, space.cores}) {
    for (const int threads : {1, 2, 4, 8, 16}) {
      const Candidate layout = Layout(replicas, threads, mode);
      if (replicas * threads <= space.cores) continue;
      if (std::find(layouts.begin(), layouts.end(), layout) == layouts.end()) {
        layouts.push_back(layout);
      }
    }
  }
  return layouts;
}

std::string NameOf(const Candidate& candidate, int64_t max_batch_size) {
  const int64_t rows = candidate.most_rows > 0 ? candidate.most_rows : max_batch_size;
  return absl::StrCat(candidate.replicas, " x ", candidate.threads,
                      rows > 0 ? absl::StrCat(", batches of ", rows) : "",
                      candidate.mode ? ", " + NameOf(*candidate.mode) : "");
}

}  // namespace millrace
