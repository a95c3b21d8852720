// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/unique_fd.h"

namespace millrace {

// Who gets to a unix socket.
struct UnixAccess {
  mode_t mode = 0600;               // Of the socket's file: connecting takes the right to write.
  std::vector<uid_t> allowed = {};  // Users that are let in; empty: whoever the mode lets.
};

// From where a socket can be reached.
enum class Reach { kUnix, kLoopback, kNetwork };

// The sockets that listen on one address, as an operator writes it: host:port, which may stand for
// several (localhost is 127.0.0.1 and ::1), or unix:/path. Thread-compatible. Closing it removes
// the file of a unix socket.
class ListeningSocket {
 public:
  // Listens on `address`. Port 0 is one that the kernel chooses; 0.0.0.0 and [::] are every address
  // of this machine, of both kinds where it has both. UNAVAILABLE where it is taken, by another
  // server that lives, or isn't this machine's; the message names the address. The socket's file
  // of a server that has gone is replaced.
  static absl::StatusOr<ListeningSocket> Open(const std::string& address, const UnixAccess& access);

  ListeningSocket(ListeningSocket&&) = default;
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  ~ListeningSocket();

  // With the port that was chosen.
  const std::string& address() const { return address_; }
  Reach reach() const { return reach_; }
  const std::vector<UniqueFd>& descriptors() const { return descriptors_; }

 private:
  ListeningSocket() = default;

  static absl::StatusOr<ListeningSocket> OpenUnix(const std::string& path,
                                                  const UnixAccess& access);
  static absl::StatusOr<ListeningSocket> OpenTcp(const std::string& address);

  std::string address_;
  std::string path_;  // Of a unix socket; empty when moved from.
  Reach reach_ = Reach::kLoopback;
  std::vector<UniqueFd> descriptors_;
};

}  // namespace millrace
