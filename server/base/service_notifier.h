// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace millrace {

// Tells the service manager that started this process how it fares: the protocol of sd_notify(3),
// datagrams to the Unix socket that NOTIFY_SOCKET names. Thread-safe.
class ServiceNotifier {
 public:
  // As NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID say. Without the first nobody is told.
  static ServiceNotifier FromEnvironment();

  // `socket` is an absolute path, or "@" and an abstract name; empty: nobody is told.
  ServiceNotifier(std::string socket, bool has_watchdog)
      : socket_(std::move(socket)), has_watchdog_(has_watchdog) {}

  // Whether the manager ends this process when it hears no WATCHDOG=1 for a while.
  bool has_watchdog() const { return has_watchdog_ && !socket_.empty(); }

  // Sends lines of NAME=VALUE. Never blocks: UNAVAILABLE where the manager's socket is full, or
  // isn't there.
  absl::Status Tell(absl::string_view lines) const;

  // "RELOADING=1" with the time of the monotonic clock, which managers want with it.
  absl::Status TellReloading() const;

 private:
  const std::string socket_;
  const bool has_watchdog_;
};

}  // namespace millrace
