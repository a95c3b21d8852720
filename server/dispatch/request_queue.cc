// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/request_queue.h"

#include <utility>

#include "server/base/check.h"

namespace millrace {

bool RequestQueue::HasRoom(int64_t rows) const {
  return queue_.empty() || rows_ + rows <= most_rows_;
}

void RequestQueue::Push(std::shared_ptr<PendingRequest> request) {
  rows_ += request->rows();
  queue_.push_back(std::move(request));
}

std::vector<std::shared_ptr<PendingRequest>> RequestQueue::AdmitParked() {
  std::vector<std::shared_ptr<PendingRequest>> admitted;
  while (!door_.empty() && HasRoom(door_.front()->rows())) {
    admitted.push_back(door_.front());
    Push(std::move(door_.front()));
    door_.pop_front();
  }
  return admitted;
}

void RequestQueue::ClaimedFromFront(int64_t rows) {
  PendingRequest& request = *queue_.front();
  request.rows_claimed += rows;
  rows_ -= rows;
  MILLRACE_CHECK(request.rows_claimed <= request.rows(), "A row has one place.");
  if (request.rows_claimed == request.rows()) queue_.pop_front();
}

void RequestQueue::PopFront() {
  rows_ -= queue_.front()->rows() - queue_.front()->rows_claimed;
  queue_.pop_front();
}

RequestQueue::Removed RequestQueue::Remove(absl::FunctionRef<bool(const PendingRequest&)> matches) {
  Removed removed;
  std::erase_if(queue_, [&](const std::shared_ptr<PendingRequest>& request) {
    if (!matches(*request)) return false;
    rows_ -= request->rows() - request->rows_claimed;
    removed.queued.push_back(request);
    return true;
  });
  std::erase_if(door_, [&](const std::shared_ptr<PendingRequest>& request) {
    if (!matches(*request)) return false;
    removed.parked.push_back(request);
    return true;
  });
  return removed;
}

absl::Time RequestQueue::oldest_arrival() const {
  return queue_.empty() ? absl::InfiniteFuture() : queue_.front()->arrival;
}

}  // namespace millrace
