// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/connection_flows.h"

#include <algorithm>

namespace millrace {

std::shared_ptr<const Flow> ConnectionFlows::Of(absl::string_view peer) {
  MutexLock lock(mutex_);
  if (const auto found = flows_.find(peer); found != flows_.end()) return found->second;
  if (flows_.size() >= most_kept_) ForgetUnused();
  auto flow = std::make_shared<const Flow>(Flow::Options{.overflow = Overflow::kReject});
  flows_.emplace(peer, flow);
  return flow;
}

size_t ConnectionFlows::size() const {
  MutexLock lock(mutex_);
  return flows_.size();
}

// Only Of() hands flows out, under the lock: what nobody but the map holds stays so meanwhile.
void ConnectionFlows::ForgetUnused() {
  absl::erase_if(flows_, [](const auto& entry) { return entry.second.use_count() == 1; });
  most_kept_ = std::max(kFewestKept, 2 * flows_.size());
}

}  // namespace millrace
