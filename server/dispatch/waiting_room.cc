// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/waiting_room.h"

#include <utility>

namespace millrace {
namespace {

// So many requests whose flows may not go out of turn are passed over in search of an urgent one.
constexpr int kMostPassedOver = 32;

}  // namespace

WaitingRoom::WaitingRoom(std::vector<int64_t> most_rows)
    : most_rows_(std::move(most_rows)),
      queue_(static_cast<int>(most_rows_.size())),
      preparations_(queue_.tiers()),
      doors_(most_rows_.size()),
      urgent_(most_rows_.size()) {}

bool WaitingRoom::HasRoom(const PendingRequest& request) const {
  const int64_t rows = queue_.rows(request.level);
  return rows == 0 || rows + request.rows() <= most_rows(request.level);
}

void WaitingRoom::Enter(PendingRequest& request) {
  queue_.Push(request);
  preparations_.Enter(request);
  Watch(request);
}

void WaitingRoom::PutBack(PendingRequest& request, double cost) {
  queue_.PutBack(request, cost);
  preparations_.Enter(request);
  Watch(request);
}

void WaitingRoom::Park(PendingRequest& request, PendingRequest* place) {
  door(request).InsertBefore(place, request);
  Watch(request);
  ++parked_count_;
}

void WaitingRoom::Remove(PendingRequest& request) {
  Unwatch(request);
  if (IsParked(request)) {
    door(request).Remove(request);
    --parked_count_;
  } else {
    preparations_.Leave(request);
    queue_.Remove(request);
  }
}

void WaitingRoom::Claim(PendingRequest& request, int64_t rows, double cost) {
  queue_.Claim(request, rows, cost);
  if (Holds(request)) return;
  preparations_.Leave(request);
  Unwatch(request);
}

void WaitingRoom::Prepared(PendingRequest& request) {
  if (Holds(request) && !IsParked(request)) queue_.Prepared(request);
}

PendingRequest* WaitingRoom::FirstToLetIn() const {
  if (parked_count_ == 0) return nullptr;
  for (const Door& door : doors_) {
    if (!door.empty() && HasRoom(*door.front())) return door.front();
  }
  return nullptr;
}

PendingRequest* WaitingRoom::MostUrgent(
    int level, absl::Time end, absl::FunctionRef<bool(const PendingRequest&)> eligible) const {
  return urgent(level).FirstBefore(end, kMostPassedOver, eligible);
}

int64_t WaitingRoom::RowsWithDeadline(int level) const {
  const auto requests = static_cast<int64_t>(urgent(level).size());
  return requests == 0 ? 0 : requests * queue_.rows() / queue_.size();
}

PendingRequest* WaitingRoom::Expired(absl::Time now) const {
  return expiries_.next() <= now ? expiries_.top() : nullptr;
}

void WaitingRoom::Update(PendingRequest& request, absl::FunctionRef<void(PendingRequest&)> change) {
  Unwatch(request);
  change(request);
  Watch(request);
}

void WaitingRoom::Delay(PendingRequest& request) {
  const int tier = FairQueue::TierOf(request.level, true);
  request.delayed = true;
  if (IsParked(request)) {
    request.tier = tier;
    return;
  }
  Remove(request);
  request.tier = tier;
  Enter(request);
}

void WaitingRoom::Watch(PendingRequest& request) {
  expiries_.Push(request);
  if (!IsParked(request)) urgent(request.level).Push(request);
}

void WaitingRoom::Unwatch(PendingRequest& request) {
  expiries_.Remove(request);
  urgent(request.level).Remove(request);
}

}  // namespace millrace
