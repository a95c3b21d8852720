// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/unique_fd.h"

namespace millrace {

// A message between server and worker: text, and file descriptors that cross with it.
struct ControlMessage {
  std::string text;
  std::vector<UniqueFd> fds;
};

// One end of the socket between the server and a worker process (SOCK_SEQPACKET: a message comes
// whole). Not on the hot path. Thread-compatible.
class ControlSocket {
 public:
  // The most bytes and file descriptors of one message.
  static constexpr size_t kMostBytes = 128 << 10;
  static constexpr size_t kMostFds = 8;

  explicit ControlSocket(UniqueFd fd) : fd_(std::move(fd)) {}

  // Two connected ends, closed on exec.
  static absl::StatusOr<std::pair<ControlSocket, ControlSocket>> CreatePair();

  // Sends `text` with copies of `fds`. UNAVAILABLE when the other end is gone.
  absl::Status Send(const std::string& text, const std::vector<int>& fds = {}) const;

  // Waits for a message. UNAVAILABLE when the other end is gone, DEADLINE_EXCEEDED after `timeout`.
  absl::StatusOr<ControlMessage> Receive(absl::Duration timeout = absl::InfiniteDuration()) const;

  int fd() const { return fd_.get(); }
  UniqueFd release() { return std::move(fd_); }

 private:
  UniqueFd fd_;
};

}  // namespace millrace
