// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/config/server_config.h"
#include "server/repository/model_repository.h"
#include "server/rpc/rpc_server.h"
#include "server/transform/transform_stage.h"

namespace millrace {

// Says as JSON what the server is doing; docs/status-page.md lists the members. Counts are since
// the model was loaded, so that who asks twice knows what happened between. Thread-safe; takes no
// lock that a request takes for longer than to copy a few numbers.
class StatusReport {
 public:
  // So many of each are in a report, with the number of those left out.
  static constexpr size_t kMostModels = 200;
  static constexpr size_t kMostReplicas = 512;
  static constexpr size_t kMostStreams = 100;
  static constexpr size_t kMostRestarts = 30;

  // All of it outlives the report.
  struct Context {
    const ServerConfig* config;
    std::string version;
    ModelRepository* repository;
    const RpcServer* rpc;
    const TransformStage* transforms;
    std::function<absl::Status()> readiness;
  };

  explicit StatusReport(Context context);

  // One line.
  std::string Json() const;

 private:
  const Context context_;
  const absl::Time started_;
};

// The settings, each a line "name: value" of `effective`, as a JSON object in one line; what names
// a secret isn't told.
std::string RedactedSettings(const std::string& effective);

}  // namespace millrace
