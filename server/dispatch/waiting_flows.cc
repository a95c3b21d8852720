// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/waiting_flows.h"

#include "server/dispatch/waiting_room.h"

namespace millrace {

WaitingFlows::~WaitingFlows() {
  for (const auto& request : All()) request->self.reset();
}

void WaitingFlows::AddPlace(const std::shared_ptr<PendingRequest>& request) {
  if (request->places++ > 0) return;
  ++count_;
  request->self = request;
  Requests& flow = by_flow_[request->flow().id()];
  ++flow.count;
  if (request->started) {  // It is older than those that wait.
    flow.requests.PushFront(*request);
  } else {
    flow.requests.PushBack(*request);
  }
  by_caller_[&request->caller()].PushBack(*request);
}

void WaitingFlows::RemovePlace(PendingRequest& request) {
  if (--request.places > 0) return;
  --count_;
  const auto flow = by_flow_.find(request.flow().id());
  flow->second.requests.Remove(request);
  if (--flow->second.count == 0) by_flow_.erase(flow);
  const auto caller = by_caller_.find(&request.caller());
  caller->second.Remove(request);
  if (caller->second.empty()) by_caller_.erase(caller);
  request.self.reset();
}

const WaitingFlows::Requests* WaitingFlows::Find(const Flow& flow) const {
  const auto found = by_flow_.find(flow.id());
  return found == by_flow_.end() ? nullptr : &found->second;
}

int64_t WaitingFlows::CountOf(const Flow& flow) const {
  const Requests* const found = Find(flow);
  return found == nullptr ? 0 : found->count;
}

PendingRequest* WaitingFlows::FirstOf(const Flow& flow) const {
  const Requests* const found = Find(flow);
  return found == nullptr ? nullptr : found->requests.front();
}

int64_t WaitingFlows::BytesOf(const Flow& flow) const {
  int64_t bytes = 0;
  for (const PendingRequest* request = FirstOf(flow); request != nullptr;
       request = OfFlow::Next(*request)) {
    bytes += request->held_bytes;
  }
  return bytes;
}

std::vector<PendingRequest*> WaitingFlows::Of(const Caller& caller) const {
  std::vector<PendingRequest*> requests;
  const auto found = by_caller_.find(&caller);
  if (found == by_caller_.end()) return requests;
  for (PendingRequest* request = found->second.front(); request != nullptr;
       request = OfCaller::Next(*request)) {
    requests.push_back(request);
  }
  return requests;
}

std::vector<std::shared_ptr<PendingRequest>> WaitingFlows::All() const {
  std::vector<std::shared_ptr<PendingRequest>> all;
  for (const auto& [id, flow] : by_flow_) {
    for (const PendingRequest* request = flow.requests.front(); request != nullptr;
         request = OfFlow::Next(*request)) {
      all.push_back(request->self);
    }
  }
  return all;
}

PendingRequest* WaitingFlows::NextInTier(const PendingRequest& request) {
  PendingRequest* next = OfFlow::Next(request);
  while (next != nullptr && next->tier != request.tier) next = OfFlow::Next(*next);
  return next;
}

PendingRequest* WaitingFlows::NextAtDoor(const PendingRequest& request) {
  PendingRequest* next = OfFlow::Next(request);
  while (next != nullptr && (next->level != request.level || !WaitingRoom::IsParked(*next))) {
    next = OfFlow::Next(*next);
  }
  return next;
}

bool WaitingFlows::LatestIsAtDoor(const Flow& flow, int level) const {
  const Requests* const found = Find(flow);
  if (found == nullptr) return false;
  const PendingRequest* latest = found->requests.back();
  while (latest != nullptr && latest->level != level) latest = OfFlow::Previous(*latest);
  return latest != nullptr && WaitingRoom::IsParked(*latest);
}

}  // namespace millrace
