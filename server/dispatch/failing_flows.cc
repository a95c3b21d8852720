// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/failing_flows.h"

namespace millrace {

void FailingFlows::Failed(uint64_t flow, absl::Time now) {
  Succeeded(flow);
  order_.push_front({flow, now});
  places_[flow] = order_.begin();
  while (order_.size() > kMost || order_.back().when + kApart <= now) {
    Succeeded(order_.back().flow);
  }
}

void FailingFlows::Succeeded(uint64_t flow) {
  const auto found = places_.find(flow);
  if (found == places_.end()) return;
  order_.erase(found->second);
  places_.erase(found);
}

bool FailingFlows::Contains(uint64_t flow, absl::Time now) const {
  if (order_.empty()) return false;
  const auto found = places_.find(flow);
  return found != places_.end() && now < found->second->when + kApart;
}

}  // namespace millrace
