// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/listening.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/security/server_credentials.h"
#include "server/rpc/accept.h"

namespace millrace {
namespace {

std::string WithPort(const std::string& address, int port) {
  if (absl::StartsWith(address, "unix:")) return address;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<grpc::Server>> Listen(grpc::ServerBuilder& builder,
                                                     absl::Span<const std::string> addresses,
                                                     std::vector<std::string>* bound) {
  KeepDescriptorForAccepting();
  std::vector<int> ports(addresses.size(), 0);
  for (size_t i = 0; i < addresses.size(); ++i) {
    builder.AddListeningPort(addresses[i], grpc::InsecureServerCredentials(), &ports[i]);
  }
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  for (size_t i = 0; i < addresses.size(); ++i) {
    if (ports[i] == 0) {
      return absl::UnavailableError(
          absl::StrCat("can't listen on '", addresses[i],
                       "': the address is taken, is not this machine's, or is not of the form "
                       "host:port or unix:/path"));
    }
    bound->push_back(WithPort(addresses[i], ports[i]));
  }
  if (server == nullptr) return absl::InternalError("gRPC did not start; its log says why");
  return server;
}

}  // namespace millrace
