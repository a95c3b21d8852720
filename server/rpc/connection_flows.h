// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "server/base/mutex.h"
#include "server/dispatch/flow.h"

namespace millrace {

// The flows of unary calls: one per connection, so that a client that opens many calls at once
// takes turns with others as one, however many it opens. Calls that find no room are rejected.
// Thread-safe.
//
// A connection is told by its peer's name, "ipv4:10.0.0.7:51234": address and port. Clients of a
// unix socket have no name of their own, so all of them together are one flow; so are those behind
// a proxy that brings their calls over one connection.
//
// Invariants:
//  1. Calls of one peer that are open at the same time share a flow.
//  2. No more flows are kept than kFewestKept, or twice those that were in use when last counted.
class ConnectionFlows {
 public:
  static constexpr size_t kFewestKept = 64;

  // The flow of the connection whose grpc::ServerContext::peer() is `peer`.
  std::shared_ptr<const Flow> Of(absl::string_view peer) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many are kept.
  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void ForgetUnused() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<const Flow>> flows_ ABSL_GUARDED_BY(mutex_);
  size_t most_kept_ ABSL_GUARDED_BY(mutex_) = kFewestKept;
};

}  // namespace millrace
