// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/rpc/health_service.h"
#include "server/rpc/listeners.h"
#include "server/rpc/side_server.h"

namespace millrace {

// A gRPC server that offers the health service and nothing else, without TLS and tokens: for the
// probes of Kubernetes, which know neither. Thread-safe.
class HealthServer {
 public:
  // Listens on `addresses` (host:port or unix:/path, at least one) and serves. `door` outlives it.
  // An address that is taken or makes no sense is an error that names it.
  static absl::StatusOr<std::unique_ptr<HealthServer>> Create(std::vector<std::string> addresses,
                                                              const Door& door);

  // Cancels the calls that are going on, and waits for them.
  ~HealthServer();

  // With the ports that were chosen.
  const std::vector<std::string>& addresses() const { return server_.listeners().addresses(); }

  HealthService& health() { return health_; }

 private:
  HealthServer();

  absl::Status Start(std::vector<std::string> addresses, const Door& door);

  SideServer server_;
  HealthService health_;
};

}  // namespace millrace
