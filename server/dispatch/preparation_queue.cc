// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/preparation_queue.h"

#include <algorithm>

namespace millrace {

void PreparationQueue::Enter(PendingRequest& request) {
  taken_ += request.rows_taken;
  if (!request.needs_preparation() || request.rows_taken == request.rows()) return;
  LineFor(request).requests.PushBack(request);
}

void PreparationQueue::Leave(PendingRequest& request) {
  taken_ -= request.rows_taken;
  if (request.in_preparation.linked) Unlink(request);
}

PendingRequest& PreparationQueue::Take() {
  if (begun_ == nullptr) {
    Ring& ring =
        *std::find_if(rings_.begin(), rings_.end(), [](const Ring& each) { return !each.empty(); });
    PreparationLine& line = *ring.front();
    begun_ = line.requests.front();
    if (++line.turns >= line.weight) {
      line.turns = 0;
      ring.Remove(line);
      ring.PushBack(line);
    }
  }
  PendingRequest& request = *begun_;
  ++request.rows_taken;
  ++taken_;
  if (request.rows_taken == request.rows()) Unlink(request);
  return request;
}

PreparationLine& PreparationQueue::LineFor(const PendingRequest& request) {
  const auto [entry, is_new] = lines_.try_emplace({request.flow().id(), request.tier}, nullptr);
  if (is_new) {
    PreparationLine& line = line_pool_.Take();
    line.flow = request.flow().id();
    line.weight = request.flow().weight();
    line.tier = request.tier;
    line.turns = 0;
    entry->second = &line;
    rings_[static_cast<size_t>(line.tier)].PushBack(line);
    ++lines_waiting_;
  }
  return *entry->second;
}

void PreparationQueue::Unlink(PendingRequest& request) {
  const auto found = lines_.find({request.flow().id(), request.tier});
  PreparationLine& line = *found->second;
  line.requests.Remove(request);
  if (begun_ == &request) begun_ = nullptr;
  if (!line.requests.empty()) return;
  rings_[static_cast<size_t>(line.tier)].Remove(line);
  --lines_waiting_;
  lines_.erase(found);
  line_pool_.GiveBack(line);
}

}  // namespace millrace
