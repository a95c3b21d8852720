// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/http_server.h"

#include <fcntl.h>
#include <httplib.h>
#include <netdb.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/http/bounded_stream.h"
#include "server/http/connection_queue.h"

namespace millrace {
namespace {

constexpr char kExpositionType[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr char kTextType[] = "text/plain; charset=utf-8";

void AnswerText(httplib::Response& response, int status, const std::string& text) {
  response.status = status;
  response.set_content(text + "\n", kTextType);
}

void AnswerProbe(httplib::Response& response, const absl::Status& status) {
  if (status.ok()) return AnswerText(response, 200, "ok");
  AnswerText(response, 503, std::string(status.message()));
}

void Answer(const HttpServer::Callbacks& callbacks, const httplib::Request& request,
            httplib::Response& response) {
  response.set_header("Cache-Control", "no-store");
  if (request.method != "GET" && request.method != "HEAD") {
    response.set_header("Allow", "GET, HEAD");
    return AnswerText(response, 405, "Only GET and HEAD are served here.");
  }
  if (request.path == "/metrics") {
    response.status = 200;
    return response.set_content(callbacks.metrics(), kExpositionType);
  }
  if (request.path == "/livez") {
    const bool live = callbacks.live();
    return AnswerProbe(response, live ? absl::OkStatus() : absl::UnavailableError("not alive"));
  }
  if (request.path == "/readyz") return AnswerProbe(response, callbacks.ready());
  AnswerText(response, 404, "Not found. Served here: /metrics, /livez, /readyz.");
}

// Lets a restarted server have its port back at once, though closed connections linger. Unlike
// SO_REUSEPORT, cpp-httplib's default, it doesn't share the port with another listener.
void SetSocketOptions(int socket) {
  const int yes = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
}

absl::Status CheckAddress(const HttpServer::Options& options) {
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("HTTP port ", options.port, " is out of range; expected 0 to 65535."));
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* addresses = nullptr;
  if (const int error = getaddrinfo(options.host.c_str(), nullptr, &hints, &addresses)) {
    return absl::InvalidArgumentError(absl::StrCat("HTTP host '", options.host,
                                                   "' has no address: ", gai_strerror(error),
                                                   ". Give an address or a name of this host."));
  }
  freeaddrinfo(addresses);
  return absl::OkStatus();
}

}  // namespace

// cpp-httplib's server, with our bounds on connections.
class HttpServer::Listener final : public httplib::Server {
 public:
  Listener(const HttpServer::Options& options, Callbacks callbacks)
      : request_timeout_(options.request_timeout), callbacks_(std::move(callbacks)) {
    set_socket_options(SetSocketOptions);
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      Answer(callbacks_, request, response);
      return HandlerResponse::Handled;
    });
    new_task_queue = [this] {
      auto* const queue = new ConnectionQueue(kThreads, kMaxWaitingConnections);
      NotifyStarted();
      return queue;  // Owned by cpp-httplib.
    };
  }

  // Binds and listens; returns the port.
  absl::StatusOr<int> Listen(const HttpServer::Options& options) {
    MILLRACE_RETURN_IF_ERROR(CheckAddress(options));
    errno = 0;
    int port = options.port;
    if (port == 0) {
      port = bind_to_any_port(options.host);
    } else if (!bind_to_port(options.host, port)) {
      port = -1;
    }
    if (port > 0) return port;
    const absl::Status reason = ErrnoStatus(errno, "bind");
    return absl::UnavailableError(absl::StrCat("Can't listen for HTTP on ", options.host, ":",
                                               options.port, " (", reason.message(),
                                               "). Free the port, or choose another; 0 is any."));
  }

  // Stops listening. Connections that wait are closed, not served.
  void Stop() {
    stopping_ = true;
    stop();
  }

  // Waits until a Stop() would be heard.
  void AwaitStarted() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    while (!started_) started_changed_.Wait(mutex_);
  }

 private:
  void NotifyStarted() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    started_ = true;
    started_changed_.NotifyAll();
  }

  bool process_and_close_socket(socket_t socket) override {
    const UniqueFd owned(socket);
    if (stopping_) return false;
    fcntl(socket, F_SETFD, FD_CLOEXEC);
    BoundedStream stream(socket, kMaxRequestBytes, Clock::Real().Now() + request_timeout_);
    bool closed = false;
    const bool answered = process_request(stream, /*close_connection=*/true, closed, nullptr);
    stream.DiscardUnread();
    shutdown(socket, SHUT_RDWR);
    return answered;
  }

  const absl::Duration request_timeout_;
  const Callbacks callbacks_;
  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  CondVar started_changed_;
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(const Options& options,
                                                               Callbacks callbacks) {
  auto listener = std::make_unique<Listener>(options, std::move(callbacks));
  MILLRACE_ASSIGN_OR_RETURN(const int port, listener->Listen(options));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(listener), port));
}

HttpServer::HttpServer(std::unique_ptr<Listener> listener, int port)
    : listener_(std::move(listener)),
      port_(port),
      accept_thread_("http-accept", [this] { listener_->listen_after_bind(); }) {
  listener_->AwaitStarted();
}

HttpServer::~HttpServer() { listener_->Stop(); }

}  // namespace millrace
