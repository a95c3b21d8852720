// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/server_builder.h"
#include "server/access/connection_acceptor.h"
#include "server/access/credentials_store.h"
#include "server/access/guard_relay.h"
#include "server/access/listening_socket.h"
#include "server/base/clock.h"
#include "server/rpc/listener_credentials.h"

namespace millrace {

// What guards every listener of this process.
struct Door {
  Clock* clock;
  CredentialsStore* credentials;
  std::vector<std::string> allowed_names = {};  // Of clients' certificates; empty: any.
  UnixAccess unix = {};
};

// Where one gRPC server listens. gRPC (1.51) closes a listening socket's ear for good when
// accept4() fails, be it for a moment, and counts no connections; so the sockets and the accepting
// are our own, and gRPC gets what is let in. Thread-safe after Start(). Destroy it after the
// server.
class Listeners {
 public:
  struct Options {
    std::vector<std::string> addresses;  // host:port, with TLS where there is a certificate, or
                                         // unix:/path, without; as ParseListenAddress() takes them.
    bool tls = true;                     // False: never.
    bool tokens = true;                  // False: never asked for.
    uint32_t offered = ~uint32_t{0};     // Classes of methods: BitOf() each.
    bool always_check = false;           // Also where no token or name is demanded.
    ConnectionLimits::Options limits = {};
  };

  // Opens the sockets, and has what `builder` describes serve them. An address that is taken or
  // makes no sense is an error that names it.
  static absl::StatusOr<std::unique_ptr<Listeners>> Open(Options options, const Door& door,
                                                         grpc::ServerBuilder& builder);

  // Begins to take connections. Call once, after the server was built.
  absl::Status Start();

  // Takes no more connections, and gives the addresses up. Call before the server is shut down.
  void Close() {
    if (acceptor_ != nullptr) acceptor_->Stop();
  }

  // With the ports that were chosen.
  const std::vector<std::string>& addresses() const { return addresses_; }

  // Those of them that other machines reach and that have no TLS.
  const std::vector<std::string>& exposed() const { return exposed_; }

  // Whether other machines reach any of them.
  bool reaches_network() const { return reaches_network_; }

  // REQUIRES: Start() was called.
  const ConnectionAcceptor& acceptor() const { return *acceptor_; }
  const DeniedCalls& denied() const { return denied_; }

  // Null where no address is guarded.
  const GuardRelay* guard() const { return guard_.get(); }

 private:
  using Entrance = grpc::experimental::ExternalConnectionAcceptor;

  Listeners(Options options, const Door& door) : options_(std::move(options)), door_(door) {}

  absl::Status OpenAll(grpc::ServerBuilder& builder);
  void Take(size_t socket, UniqueFd connection);

  const Options options_;
  const Door door_;
  DeniedCalls denied_;
  std::vector<std::string> addresses_;
  std::vector<std::string> exposed_;
  bool reaches_network_ = false;
  std::vector<ListeningSocket> sockets_;  // Until Start().
  std::vector<std::shared_ptr<ListenerCredentials>> credentials_;
  std::vector<std::unique_ptr<Entrance>> entrances_;  // One for each socket.
  std::vector<bool> guarded_;                         // Likewise.
  std::unique_ptr<GuardRelay> guard_;                 // Outlives the acceptor.
  std::unique_ptr<ConnectionAcceptor> acceptor_;
};

}  // namespace millrace
