// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/listening_socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr absl::string_view kUnixScheme = "unix:";
constexpr int kOn = 1;
constexpr int kOff = 0;

absl::Status CantListen(const std::string& address, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("can't listen on '", address, "': ", why));
}

UniqueFd Socket(int family) {
  return UniqueFd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

struct FreeAddresses {
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};

uint16_t PortOf(const UniqueFd& descriptor) {
  sockaddr_storage bound = {};
  socklen_t length = sizeof(bound);
  getsockname(descriptor.get(), reinterpret_cast<sockaddr*>(&bound), &length);
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                           : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

void SetPort(sockaddr_storage& address, uint16_t port) {
  if (address.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(&address)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(&address)->sin_port = htons(port);
  }
}

bool IsLoopback(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET6) {
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr);
  }
  return ntohl(reinterpret_cast<const sockaddr_in*>(&address)->sin_addr.s_addr) >> 24 == 127;
}

// Binds and listens; invalid, with errno set, where that fails.
UniqueFd ListenTcp(const sockaddr_storage& address) {
  UniqueFd descriptor = Socket(address.ss_family);
  if (!descriptor.valid()) return descriptor;
  setsockopt(descriptor.get(), SOL_SOCKET, SO_REUSEADDR, &kOn, sizeof(kOn));
  const bool six = address.ss_family == AF_INET6;
  if (six) setsockopt(descriptor.get(), IPPROTO_IPV6, IPV6_V6ONLY, &kOff, sizeof(kOff));
  const socklen_t length = six ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (bind(descriptor.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      listen(descriptor.get(), SOMAXCONN) != 0) {
    return UniqueFd();
  }
  return descriptor;
}

// What the host stands for, and whether that is every address.
absl::StatusOr<std::vector<sockaddr_storage>> Resolve(const std::string& host, uint16_t port) {
  std::vector<sockaddr_storage> found;
  if (host == "0.0.0.0" || host == "::") {
    // One socket of IPv6 takes both kinds. The other is for machines that don't know IPv6.
    found.emplace_back().ss_family = UniqueFd(Socket(AF_INET6)).valid() ? AF_INET6 : AF_INET;
  } else {
    addrinfo wanted = {};
    wanted.ai_flags = AI_PASSIVE;
    wanted.ai_socktype = SOCK_STREAM;
    addrinfo* first = nullptr;
    const int error = getaddrinfo(host.c_str(), nullptr, &wanted, &first);
    const std::unique_ptr<addrinfo, FreeAddresses> owned(first);
    if (error != 0) return absl::UnavailableError(gai_strerror(error));
    for (const addrinfo* each = first; each != nullptr; each = each->ai_next) {
      if (each->ai_family != AF_INET && each->ai_family != AF_INET6) continue;
      std::memcpy(&found.emplace_back(), each->ai_addr, each->ai_addrlen);
    }
  }
  for (sockaddr_storage& each : found) SetPort(each, port);
  return found;
}

// Whether nobody listens at the socket any more.
bool IsLeftBehind(const sockaddr_un& name) {
  const UniqueFd probe = Socket(AF_UNIX);
  return probe.valid() &&
         connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0 &&
         errno == ECONNREFUSED;
}

}  // namespace

absl::StatusOr<ListeningSocket> ListeningSocket::Open(const std::string& address,
                                                      const UnixAccess& access) {
  if (absl::StartsWith(address, kUnixScheme)) {
    return OpenUnix(address.substr(kUnixScheme.size()), access);
  }
  return OpenTcp(address);
}

absl::StatusOr<ListeningSocket> ListeningSocket::OpenTcp(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return CantListen(address, "it is not of the form host:port or unix:/path");
  }
  absl::string_view host(address.data(), colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  const absl::StatusOr<std::vector<sockaddr_storage>> resolved =
      Resolve(std::string(host), static_cast<uint16_t>(port));
  if (!resolved.ok()) return CantListen(address, resolved.status().message());
  ListeningSocket listening;
  int error = EADDRNOTAVAIL;
  for (sockaddr_storage each : *resolved) {
    if (port == 0 && !listening.descriptors_.empty()) {
      SetPort(each, PortOf(listening.descriptors_[0]));
    }
    UniqueFd descriptor = ListenTcp(each);
    if (!descriptor.valid()) {
      error = errno;
      if (error == EADDRNOTAVAIL || error == EAFNOSUPPORT) continue;  // ::1 where there is no IPv6.
      return CantListen(address, error == EADDRINUSE ? "the address is taken"
                                                     : absl::string_view(std::strerror(error)));
    }
    if (!IsLoopback(each)) listening.reach_ = Reach::kNetwork;
    listening.descriptors_.push_back(std::move(descriptor));
  }
  if (listening.descriptors_.empty()) {
    return CantListen(
        address, absl::StrCat("it is not an address of this machine (", std::strerror(error), ")"));
  }
  listening.address_ =
      absl::StrCat(address.substr(0, colon), ":", PortOf(listening.descriptors_[0]));
  return listening;
}

absl::StatusOr<ListeningSocket> ListeningSocket::OpenUnix(const std::string& path,
                                                          const UnixAccess& access) {
  const std::string address = absl::StrCat(kUnixScheme, path);
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    return CantListen(address, absl::StrCat("the path has ", path.size(), " bytes, expected 1 to ",
                                            sizeof(name.sun_path) - 1));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  struct stat file = {};
  if (lstat(path.c_str(), &file) == 0) {
    if (!S_ISSOCK(file.st_mode)) return CantListen(address, "there is a file that is no socket");
    if (!IsLeftBehind(name)) return CantListen(address, "the address is taken");
    unlink(path.c_str());
  }
  ListeningSocket listening;
  listening.reach_ = Reach::kUnix;
  UniqueFd descriptor = Socket(AF_UNIX);
  // Before it is bound, the mode is what the file will have at most: nobody slips in meanwhile.
  if (!descriptor.valid() || fchmod(descriptor.get(), access.mode) != 0 ||
      bind(descriptor.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    return CantListen(address, std::strerror(errno));
  }
  listening.path_ = path;
  if (chmod(path.c_str(), access.mode) != 0 || listen(descriptor.get(), SOMAXCONN) != 0) {
    return CantListen(address, std::strerror(errno));
  }
  listening.descriptors_.push_back(std::move(descriptor));
  listening.address_ = address;
  return listening;
}

ListeningSocket::~ListeningSocket() {
  if (!path_.empty() && !descriptors_.empty()) unlink(path_.c_str());
}

}  // namespace millrace
