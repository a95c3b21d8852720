// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/service_notifier.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/unique_fd.h"

namespace millrace {
namespace {

std::string Environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

ServiceNotifier ServiceNotifier::FromEnvironment() {
  const std::string process = Environment("WATCHDOG_PID");
  const bool is_for_us = process.empty() || process == absl::StrCat(getpid());
  return {Environment("NOTIFY_SOCKET"), is_for_us && !Environment("WATCHDOG_USEC").empty()};
}

absl::Status ServiceNotifier::Tell(absl::string_view lines) const {
  if (socket_.empty()) return absl::OkStatus();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if ((socket_[0] != '/' && socket_[0] != '@') || socket_.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("NOTIFY_SOCKET is '", socket_, "'; expected an absolute path, or @ and a ",
                     "name, of less than ", sizeof(address.sun_path), " bytes"));
  }
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_[0] == '@') address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const UniqueFd sender(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!sender.valid() ||
      sendto(sender.get(), lines.data(), lines.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&address), size) < 0) {
    return absl::UnavailableError(
        absl::StrCat("the service manager at ", socket_, " wasn't told: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status ServiceNotifier::TellReloading() const {
  // The real clock is CLOCK_MONOTONIC, as is the manager's.
  return Tell(
      absl::StrCat("RELOADING=1\nMONOTONIC_USEC=", absl::ToUnixMicros(Clock::Real().Now())));
}

}  // namespace millrace
