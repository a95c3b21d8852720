// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace millrace {
inline namespace client {

// A millrace-server of this process's own, which serves a model repository on a Unix socket and
// ends with it. Thread-compatible.
class EmbeddedServer {
 public:
  // Starts the millrace-server beside this program and waits until its models are loaded.
  // UNAVAILABLE with the last lines of its log where that doesn't come about, CANCELLED where the
  // run is interrupted.
  static absl::StatusOr<std::unique_ptr<EmbeddedServer>> Start(const std::string& repository,
                                                               absl::Duration timeout);

  // Ends it, and waits for its end.
  ~EmbeddedServer();
  EmbeddedServer(const EmbeddedServer&) = delete;
  EmbeddedServer& operator=(const EmbeddedServer&) = delete;

  std::string address() const;

 private:
  EmbeddedServer() = default;
  absl::Status Launch(const std::string& repository);
  absl::Status WaitUntilReady(absl::Duration timeout);
  std::string LastOfLog() const;

  std::string folder_;
  pid_t pid_ = 0;  // 0 once it was waited for.
};

}  // namespace client
}  // namespace millrace
