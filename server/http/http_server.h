// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/thread.h"
#include "server/http/event_feed.h"

namespace millrace {

// Serves operators and their machines over plain HTTP/1.1, GET and HEAD only:
//   /metrics   the text exposition for Prometheus
//   /livez     200 "ok" while the process works; 503 when it should be restarted
//   /readyz    200 "ok" when requests are welcome, else 503 with the reason; with ?verbose a line
//              for each thing that it depends on
//   /          a page for people, which shows the status
//   /statusz   the status, as JSON
//   /events    the status whenever it is new, as server-sent events
// The last three are refused to pages of other origins, and by names that such a page could have
// made its own (see IsOwnHost()).
// Thread-safe.
//
// Invariants:
//  1. Nothing is unbounded: a fixed number of threads serves a bounded line of connections; each
//     connection carries one request of at most kMaxRequestBytes and is closed at its deadline. A
//     connection that events are sent on takes no thread; see EventFeed for their bounds.
//  2. A port that somebody else listens on is an error; it is never shared.
//  3. After the destructor no callback runs.
class HttpServer {
 public:
  static constexpr int kThreads = 4;
  static constexpr int kMaxWaitingConnections = 32;
  static constexpr int kMaxRequestBytes = 16 * 1024;

  struct Options {
    std::string host = "127.0.0.1";                     // A name or an address.
    int port = 8002;                                    // 0: any free one.
    absl::Duration request_timeout = absl::Seconds(5);  // To read a request and write its answer.
    EventFeed::Options events;
  };

  // Where the answers come from. Called by several threads at once; must be quick: probes wait.
  struct Callbacks {
    std::function<std::string()> metrics;
    std::function<bool()> live;
    std::function<absl::Status()> ready;
    // What readiness depends on, by name, with the reason why not.
    std::function<std::vector<std::pair<std::string, absl::Status>>()> checks;
    std::function<std::string()> status;  // JSON in one line; called by one thread at a time.
  };

  // Listens and serves until destruction. INVALID_ARGUMENT for a host that is unknown or a port
  // out of range; UNAVAILABLE, naming host and port, where they can't be listened on.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(const Options& options,
                                                            Callbacks callbacks);

  // Stops listening and waits for the requests in work, at most for their deadlines.
  ~HttpServer();

  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // How many watch.
  size_t viewers() const;

  // The port that is listened on.
  int port() const { return port_; }

 private:
  class Listener;

  HttpServer(std::unique_ptr<Listener> listener, int port);

  std::unique_ptr<Listener> listener_;
  int port_;
  Thread accept_thread_;  // Last: it uses the listener.
};

}  // namespace millrace
