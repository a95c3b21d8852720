// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/repository/model_repository.h"
#include "server/rpc/control_service.h"
#include "server/rpc/listeners.h"
#include "server/rpc/reflection_service.h"
#include "server/rpc/side_server.h"

namespace millrace {

// What operators call, on addresses of its own: proto/admin.proto; the methods of
// GRPCInferenceService that carry no tensors, with loading and unloading; reflection; channelz.
// Calls to the first may block, so it is a gRPC server of its own with a few threads. Thread-safe.
class AdminServer {
 public:
  struct Options {
    std::vector<std::string> listen;  // host:port or unix:/path, at least one.
    std::function<void()> drain;      // Has the server end in order; must not block.
    bool reflection = true;
    bool channelz = false;  // Of every gRPC server of this process that counts for it.
    ControlService::Options control;
  };

  // Listens and serves. `repository` and `door` outlive it. An address that is taken or makes no
  // sense is an error that names it. Servers that are built after one with channelz offer it, too.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Create(Options options,
                                                             ModelRepository& repository,
                                                             const Door& door);

  // Cancels the calls that are going on, and waits for them.
  ~AdminServer();

  // The addresses that it listens on, with the ports that were chosen.
  const std::vector<std::string>& addresses() const { return server_.listeners().addresses(); }

 private:
  class Service;

  AdminServer(Options options, ModelRepository& repository);

  absl::Status Start(const Door& door);

  const Options options_;
  SideServer server_;
  std::unique_ptr<Service> service_;
  RawInferenceService inference_;
  ControlService control_;
  ReflectionService reflection_;
};

}  // namespace millrace
