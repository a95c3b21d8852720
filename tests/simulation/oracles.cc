// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/oracles.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <queue>
#include <set>
#include <utility>

namespace millrace {
namespace {

// Lets requests arrive and replicas become free in the order of time. `arrive(index)` takes a
// request into the queue; `next_batch(now)` takes a batch out, and is empty where none waits.
void Serve(std::vector<Entry>& entries, const OracleServer& server,
           const std::function<void(size_t)>& arrive,
           const std::function<std::vector<size_t>(absl::Time)>& next_batch) {
  std::priority_queue<absl::Time, std::vector<absl::Time>, std::greater<>> busy_until;
  int free = server.replicas;
  size_t arrived = 0;
  for (;;) {
    const absl::Time next_arrival =
        arrived < entries.size() ? entries[arrived].sent : absl::InfiniteFuture();
    const absl::Time next_free = busy_until.empty() ? absl::InfiniteFuture() : busy_until.top();
    const absl::Time now = std::min(next_arrival, next_free);
    if (now == absl::InfiniteFuture()) return;
    for (; arrived < entries.size() && entries[arrived].sent <= now; ++arrived) arrive(arrived);
    for (; !busy_until.empty() && busy_until.top() <= now; busy_until.pop()) ++free;
    while (free > 0) {
      const std::vector<size_t> batch = next_batch(now);
      if (batch.empty()) break;
      const auto shape = static_cast<size_t>(entries[batch[0]].shape);
      const absl::Time end = now + server.shapes[shape].Of(static_cast<int64_t>(batch.size()));
      for (const size_t member : batch) {
        entries[member].answered = end;
        entries[member].code = absl::StatusCode::kOk;
      }
      busy_until.push(end);
      --free;
    }
  }
}

}  // namespace

std::vector<Entry> EarliestDeadlineFirst(const std::vector<Entry>& entries,
                                         const OracleServer& server, TooSlowForTheFirst then) {
  const BatchTime& time = server.shapes[0];
  std::vector<Entry> served = entries;
  std::set<std::pair<absl::Time, size_t>> queue;  // By deadline.
  const auto give_up_first = [&](absl::Time now) {
    Entry& entry = served[queue.begin()->second];
    entry.answered = now;
    entry.code = absl::StatusCode::kDeadlineExceeded;
    queue.erase(queue.begin());
  };
  const auto next_batch = [&](absl::Time now) {
    while (!queue.empty() && now + time.Of(1) > queue.begin()->first) give_up_first(now);
    const auto full = [&] {
      return std::min(server.max_batch_size, static_cast<int64_t>(queue.size()));
    };
    if (then == TooSlowForTheFirst::kGiveItUp) {
      while (!queue.empty() && now + time.Of(full()) > queue.begin()->first) give_up_first(now);
    }
    int64_t rows = full();
    while (rows > 1 && now + time.Of(rows) > queue.begin()->first) --rows;
    std::vector<size_t> batch;
    for (; rows > 0; --rows) {
      batch.push_back(queue.begin()->second);
      queue.erase(queue.begin());
    }
    return batch;
  };
  Serve(
      served, server, [&](size_t index) { queue.emplace(served[index].deadline, index); },
      next_batch);
  return served;
}

std::vector<Entry> HeadOfLineBatching(const std::vector<Entry>& entries,
                                      const OracleServer& server) {
  std::vector<Entry> served = entries;
  std::deque<size_t> queue;
  const auto next_batch = [&](absl::Time /*now*/) {
    std::vector<size_t> batch;
    while (!queue.empty() && static_cast<int64_t>(batch.size()) < server.max_batch_size &&
           (batch.empty() || served[queue.front()].shape == served[batch[0]].shape)) {
      batch.push_back(queue.front());
      queue.pop_front();
    }
    return batch;
  };
  Serve(
      served, server, [&](size_t index) { queue.push_back(index); }, next_batch);
  return served;
}

}  // namespace millrace
