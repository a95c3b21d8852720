// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/server.h"
#include "server/repository/model_repository.h"

namespace millrace {

// Offers proto/admin.proto on addresses of its own. Its calls may block, so it is a gRPC server of
// its own with a few threads. Thread-safe.
class AdminServer {
 public:
  struct Options {
    std::vector<std::string> listen;  // host:port or unix:/path, at least one.
    std::function<void()> drain;      // Has the server end in order; must not block.
  };

  // Listens and serves. `repository` outlives it. An address that is taken or makes no sense is an
  // error that names it.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Create(Options options,
                                                             ModelRepository& repository);

  // Cancels the calls that are going on, and waits for them.
  ~AdminServer();

  // The addresses that it listens on, with the ports that were chosen.
  const std::vector<std::string>& addresses() const { return addresses_; }

 private:
  class Service;

  AdminServer(Options options, ModelRepository& repository);

  std::unique_ptr<Service> service_;
  std::vector<std::string> addresses_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace millrace
