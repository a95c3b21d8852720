// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/listeners.h"

#include <algorithm>
#include <utility>

#include "server/access/listen_address.h"
#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/status.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<Listeners>> Listeners::Open(Options options, const Door& door,
                                                           grpc::ServerBuilder& builder) {
  std::unique_ptr<Listeners> listeners(new Listeners(std::move(options), door));
  MILLRACE_RETURN_IF_ERROR(listeners->OpenAll(builder));
  return listeners;
}

absl::Status Listeners::OpenAll(grpc::ServerBuilder& builder) {
  using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  const CredentialsStore& store = *door_.credentials;
  for (const std::string& text : options_.addresses) {
    MILLRACE_ASSIGN_OR_RETURN(const ListenAddress listen, ParseListenAddress(text));
    MILLRACE_ASSIGN_OR_RETURN(ListeningSocket socket,
                              ListeningSocket::Open(listen.address, door_.unix));
    const bool is_unix = socket.reach() == Reach::kUnix;
    ListenerCredentials::Options credentials = {
        .store = &store, .tls = options_.tls && store.uses_tls() && !is_unix, .denied = &denied_};
    MILLRACE_CHECK(!(listen.guard && credentials.tls), "A guard reads no TLS; ParseFlags() knows.");
    CallerCheck::Options check = {.offered = options_.offered};
    if (credentials.tls) check.allowed_names = door_.allowed_names;  // A user has no certificate.
    if (options_.always_check || (options_.tokens && store.demands_tokens()) ||
        !check.allowed_names.empty()) {
      credentials.check = std::make_shared<const CallerCheck>(std::move(check));
    }
    addresses_.push_back(socket.address());
    if (socket.reach() == Reach::kNetwork) {
      reaches_network_ = true;
      if (!credentials.tls) exposed_.push_back(socket.address());
    }
    credentials_.push_back(std::make_shared<ListenerCredentials>(std::move(credentials)));
    entrances_.push_back(
        builder.experimental().AddExternalConnectionAcceptor(Type::FROM_FD, credentials_.back()));
    guarded_.push_back(listen.guard);
    if (listen.guard) LogInfo("HTTP/2 is guarded at ", socket.address());
    sockets_.push_back(std::move(socket));
  }
  return absl::OkStatus();
}

absl::Status Listeners::Start() {
  if (std::find(guarded_.begin(), guarded_.end(), true) != guarded_.end()) {
    MILLRACE_ASSIGN_OR_RETURN(guard_, GuardRelay::Create({}, *door_.clock));
  }
  MILLRACE_ASSIGN_OR_RETURN(
      acceptor_,
      ConnectionAcceptor::Create(
          std::move(sockets_), {.limits = options_.limits, .allowed_users = door_.unix.allowed},
          *door_.clock,
          [this](size_t socket, UniqueFd connection) { Take(socket, std::move(connection)); }));
  return absl::OkStatus();
}

void Listeners::Take(size_t socket, UniqueFd connection) {
  if (guarded_[socket]) connection = guard_->Guard(std::move(connection));
  if (!connection.valid()) return;
  Entrance::NewConnectionParameters parameters;
  parameters.fd = connection.release();
  entrances_[socket]->HandleNewConnection(&parameters);
}

}  // namespace millrace
