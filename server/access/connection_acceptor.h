// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/access/connection_limits.h"
#include "server/access/listening_socket.h"
#include "server/base/clock.h"
#include "server/base/thread.h"
#include "server/base/unique_fd.h"

namespace millrace {

// Why a connection was not let in.
enum class ConnectionRefusal { kLimit, kPeerLimit, kUser, kDescriptors };
inline constexpr size_t kRefusals = 4;

// As metrics write it.
const char* NameOf(ConnectionRefusal refusal);

// Takes connections on listening sockets, on a thread of its own, and hands over those that are let
// in. Thread-safe.
//
// Invariants:
//  1. A lack of file descriptors, however long, ends nothing: who comes meanwhile is turned away
//     at once, by way of a descriptor that is kept for this, and who comes later is taken.
//  2. A connection counts from its being taken until both its directions are shut, by whomever. To
//     see that, the acceptor keeps a second descriptor of it, which it closes then.
class ConnectionAcceptor {
 public:
  struct Options {
    ConnectionLimits::Options limits = {};
    std::vector<uid_t> allowed_users = {};  // At unix sockets; empty: all.
  };
  // Takes a connection of `sockets[socket]`, which doesn't block and is closed on exec. Must not
  // block either.
  using Take = std::function<void(size_t socket, UniqueFd connection)>;

  // UNAVAILABLE where there are not even the descriptors to begin with.
  static absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> Create(
      std::vector<ListeningSocket> sockets, Options options, Clock& clock, Take take);

  ~ConnectionAcceptor() { Stop(); }

  // Takes no more, and closes the sockets. What was handed over isn't touched, and no longer
  // counted.
  void Stop();

  // Connections that are open now.
  size_t open() const { return open_.load(std::memory_order_relaxed); }

  // How many were refused so far for that reason.
  uint64_t refused(ConnectionRefusal refusal) const {
    return refused_[static_cast<size_t>(refusal)].load(std::memory_order_relaxed);
  }

 private:
  struct Connection {
    UniqueFd descriptor;
    std::string peer;
  };

  ConnectionAcceptor(std::vector<ListeningSocket> sockets, Options options, Clock& clock,
                     Take take);

  absl::Status Begin();
  void Run();
  // Takes what waits at a socket; false where it must be left alone for a moment.
  bool AcceptAll(size_t socket, int listening);
  void Admit(size_t socket, UniqueFd connection, const sockaddr_storage& address);
  // Takes a connection with the descriptor that is kept, and closes it. False where none waits.
  bool TurnOneAway(int listening);
  void Refuse(ConnectionRefusal refusal, const std::string& why);
  void KeepOne();

  std::vector<ListeningSocket> sockets_;
  const Options options_;
  Clock& clock_;
  const Take take_;
  UniqueFd epoll_;
  UniqueFd stop_;

  // The thread's.
  UniqueFd kept_;
  ConnectionLimits limits_;
  absl::flat_hash_map<int, Connection> connections_;  // By descriptor.

  std::atomic<size_t> open_{0};
  std::array<std::atomic<uint64_t>, kRefusals> refused_{};
  std::unique_ptr<Thread> thread_;
};

}  // namespace millrace
