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

using DeadlineQueue = std::set<std::pair<absl::Time, size_t>>;

// Rows of the batch that a replica would take now, if all of them made it.
int64_t FullBatch(const DeadlineQueue& queue, const OracleServer& server) {
  return std::min(server.max_batch_size, static_cast<int64_t>(queue.size()));
}

// Takes those out who can't be in time in a full batch.
std::vector<size_t> TakeTooUrgent(DeadlineQueue& queue, const OracleServer& server,
                                  absl::Time now) {
  std::vector<size_t> taken;
  while (!queue.empty() &&
         now + server.shapes[0].Of(FullBatch(queue, server)) > queue.begin()->first) {
    taken.push_back(queue.begin()->second);
    queue.erase(queue.begin());
  }
  return taken;
}

// The most rows, of those that wait, with which the first still makes it.
int64_t RowsInTimeForTheFirst(const DeadlineQueue& queue, const OracleServer& server,
                              absl::Time now) {
  int64_t rows = FullBatch(queue, server);
  while (rows > 1 && now + server.shapes[0].Of(rows) > queue.begin()->first) --rows;
  return rows;
}

std::vector<size_t> Take(DeadlineQueue& queue, int64_t rows) {
  std::vector<size_t> taken;
  for (; rows > 0; --rows) {
    taken.push_back(queue.begin()->second);
    queue.erase(queue.begin());
  }
  return taken;
}

// How many of the queue one replica, from `now` on, loses if it always gives them up.
size_t Lost(DeadlineQueue queue, const OracleServer& server, absl::Time now) {
  size_t lost = 0;
  while (!queue.empty()) {
    lost += TakeTooUrgent(queue, server, now).size();
    const int64_t rows = FullBatch(queue, server);
    Take(queue, rows);
    now += server.shapes[0].Of(rows);
  }
  return lost;
}

// Whether fewer are lost where the next batch is cut for its first.
bool CutLosesFewer(DeadlineQueue queue, const OracleServer& server, absl::Time now) {
  const size_t lost_without = Lost(queue, server, now);
  const int64_t rows = RowsInTimeForTheFirst(queue, server, now);
  Take(queue, rows);
  return Lost(std::move(queue), server, now + server.shapes[0].Of(rows)) < lost_without;
}

}  // namespace

std::vector<Entry> EarliestDeadlineFirst(const std::vector<Entry>& entries,
                                         const OracleServer& server, TooSlowForTheFirst then) {
  std::vector<Entry> served = entries;
  DeadlineQueue queue;
  const auto give_up = [&](size_t index, absl::Time now) {
    served[index].answered = now;
    served[index].code = absl::StatusCode::kDeadlineExceeded;
  };
  const auto next_batch = [&](absl::Time now) {
    while (!queue.empty() && now + server.shapes[0].Of(1) > queue.begin()->first) {
      give_up(Take(queue, 1)[0], now);
    }
    if (queue.empty()) return std::vector<size_t>();
    if (then == TooSlowForTheFirst::kGiveThemUp ||
        (then == TooSlowForTheFirst::kLoseTheFewer && !CutLosesFewer(queue, server, now))) {
      for (const size_t index : TakeTooUrgent(queue, server, now)) give_up(index, now);
    }
    if (queue.empty()) return std::vector<size_t>();
    return Take(queue, RowsInTimeForTheFirst(queue, server, now));
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
