// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/base/intrusive_list.h"
#include "server/dispatch/caller.h"
#include "server/dispatch/flow.h"
#include "server/dispatch/pending_request.h"

namespace millrace {

// All requests that no replica has taken yet, wherever they wait, by flow and by caller, in the
// order in which they came. Holds a reference to each while it has a place somewhere.
// Thread-compatible: the dispatcher guards it.
class WaitingFlows {
 public:
  WaitingFlows() = default;
  ~WaitingFlows();
  WaitingFlows(const WaitingFlows&) = delete;
  WaitingFlows& operator=(const WaitingFlows&) = delete;

  // A request waits in one more place, or in one less: the queue or the door, a staged batch, the
  // line of those that are to be run again.
  void AddPlace(const std::shared_ptr<PendingRequest>& request);
  void RemovePlace(PendingRequest& request);

  // How many of a flow wait, and the first of them; null where none does.
  int64_t CountOf(const Flow& flow) const;
  PendingRequest* FirstOf(const Flow& flow) const;
  // How many wait, of all flows.
  int64_t count() const { return count_; }
  // The bytes that those of a flow hold; see PendingRequest::held_bytes.
  int64_t BytesOf(const Flow& flow) const;
  std::vector<PendingRequest*> Of(const Caller& caller) const;
  std::vector<std::shared_ptr<PendingRequest>> All() const;

  // The next of the same flow and tier; null where there is none.
  static PendingRequest* NextInTier(const PendingRequest& request);
  // The first behind a request of the same flow and level that waits at the door; null where none
  // does.
  static PendingRequest* NextAtDoor(const PendingRequest& request);
  // Whether the latest of a flow and level waits at the door.
  bool LatestIsAtDoor(const Flow& flow, int level) const;

 private:
  using OfFlow = IntrusiveList<PendingRequest, &PendingRequest::in_flow>;
  struct Requests {
    OfFlow requests;
    int64_t count = 0;
  };
  using OfCaller = IntrusiveList<PendingRequest, &PendingRequest::in_caller>;

  const Requests* Find(const Flow& flow) const;

  int64_t count_ = 0;
  absl::flat_hash_map<uint64_t, Requests> by_flow_;
  absl::flat_hash_map<const Caller*, OfCaller> by_caller_;
};

}  // namespace millrace
