// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/waiting_room.h"

#include <utility>

namespace millrace {
namespace {

void Push(ExpiryHeap<PendingRequest>& heap, PendingRequest& request) {
  if (request.expiry != absl::InfiniteFuture()) heap.Push(request);
}

void Drop(ExpiryHeap<PendingRequest>& heap, PendingRequest& request) {
  if (request.expiry_place != kNotInHeap) heap.Remove(request);
}

}  // namespace

WaitingRoom::WaitingRoom(std::vector<int64_t> most_rows)
    : most_rows_(std::move(most_rows)),
      queue_(static_cast<int>(most_rows_.size())),
      doors_(most_rows_.size()) {}

bool WaitingRoom::HasRoom(const PendingRequest& request) const {
  const int64_t rows = queue_.rows(request.level);
  return rows == 0 || rows + request.rows() <= most_rows(request.level);
}

void WaitingRoom::Enter(PendingRequest& request) {
  queue_.Push(request);
  Push(queued_, request);
}

void WaitingRoom::PutBack(PendingRequest& request, double cost) {
  queue_.PutBack(request, cost);
  Push(queued_, request);
}

void WaitingRoom::Park(PendingRequest& request, PendingRequest* place) {
  door(request).InsertBefore(place, request);
  Push(parked_, request);
  ++parked_count_;
}

void WaitingRoom::Remove(PendingRequest& request) {
  if (IsParked(request)) {
    door(request).Remove(request);
    Drop(parked_, request);
    --parked_count_;
  } else {
    queue_.Remove(request);
    Drop(queued_, request);
  }
}

void WaitingRoom::Claim(PendingRequest& request, int64_t rows, double cost) {
  queue_.Claim(request, rows, cost);
  if (request.line == nullptr) Drop(queued_, request);
}

PendingRequest* WaitingRoom::FirstToLetIn() const {
  if (parked_count_ == 0) return nullptr;
  for (const Door& door : doors_) {
    if (!door.empty() && HasRoom(*door.front())) return door.front();
  }
  return nullptr;
}

PendingRequest* WaitingRoom::FirstAtDoor(const Flow& flow, int level) const {
  const Door& door = doors_[static_cast<size_t>(level) - 1];
  PendingRequest* first = door.front();
  while (first != nullptr && first->flow().id() != flow.id()) first = Door::Next(*first);
  return first;
}

PendingRequest* WaitingRoom::Expired(absl::Time now) const {
  if (queued_.next() <= now) return queued_.top();
  return parked_.next() <= now ? parked_.top() : nullptr;
}

void WaitingRoom::SetExpiry(PendingRequest& request, absl::Time expiry) {
  ExpiryHeap<PendingRequest>& heap = IsParked(request) ? parked_ : queued_;
  Drop(heap, request);
  request.expiry = expiry;
  Push(heap, request);
}

void WaitingRoom::Delay(PendingRequest& request) {
  const int tier = FairQueue::TierOf(request.level, true);
  if (IsParked(request)) {
    request.tier = tier;
    return;
  }
  Remove(request);
  request.tier = tier;
  Enter(request);
}

}  // namespace millrace
