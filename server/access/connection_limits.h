// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace millrace {

// How many connections may be open, in all and of one peer. Confined to one thread at a time.
class ConnectionLimits {
 public:
  struct Options {
    size_t most = 10000;
    size_t most_per_peer = 1000;
  };

  explicit ConnectionLimits(Options options) : options_(options) {}

  // Enters a connection of `peer`; each is left once. RESOURCE_EXHAUSTED where there are as many
  // as may be, in all or of this peer.
  absl::Status Enter(const std::string& peer);
  void Leave(const std::string& peer);

  size_t open() const { return open_; }

 private:
  const Options options_;
  size_t open_ = 0;
  absl::flat_hash_map<std::string, size_t> by_peer_;
};

// Who counts as one peer: an IPv4 address, a network of IPv6 that one host or household has (/64),
// or a user of this machine.
std::string PeerOf(const sockaddr_storage& address);
std::string PeerOf(uid_t user);

}  // namespace millrace
