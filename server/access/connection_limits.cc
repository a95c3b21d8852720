// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/connection_limits.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr size_t kMappedBytes = 12;  // Of an IPv4 address within IPv6.
constexpr size_t kNetworkBytes = 8;  // Of a /64.

std::string Text(int family, const void* bytes) {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(family, bytes, text, sizeof(text));
  return text;
}

}  // namespace

absl::Status ConnectionLimits::Enter(const std::string& peer) {
  if (open_ >= options_.most) {
    return absl::ResourceExhaustedError(
        absl::StrCat(open_, " connections are open, as many as may be"));
  }
  size_t& of_peer = by_peer_[peer];
  if (of_peer >= options_.most_per_peer) {
    return absl::ResourceExhaustedError(
        absl::StrCat(of_peer, " connections of ", peer, " are open, as many as one peer may have"));
  }
  ++of_peer;
  ++open_;
  return absl::OkStatus();
}

void ConnectionLimits::Leave(const std::string& peer) {
  const auto found = by_peer_.find(peer);
  if (found == by_peer_.end()) return;
  if (--found->second == 0) by_peer_.erase(found);
  --open_;
}

std::string PeerOf(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return Text(AF_INET, &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr);
  }
  if (address.ss_family != AF_INET6) return "unknown";
  in6_addr six = reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&six)) return Text(AF_INET, six.s6_addr + kMappedBytes);
  for (size_t i = kNetworkBytes; i < sizeof(six.s6_addr); ++i) six.s6_addr[i] = 0;
  return absl::StrCat(Text(AF_INET6, &six), "/64");
}

std::string PeerOf(uid_t user) { return absl::StrCat("uid ", user); }

}  // namespace millrace
