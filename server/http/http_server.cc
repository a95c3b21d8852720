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
#include "absl/strings/string_view.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/http/bounded_stream.h"
#include "server/http/connection_queue.h"
#include "server/http/own_host.h"
#include "server/http/status_page.h"

namespace millrace {
namespace {

constexpr char kExpositionType[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr char kTextType[] = "text/plain; charset=utf-8";
constexpr char kEventsType[] = "text/event-stream";

void AnswerText(httplib::Response& response, int status, const std::string& text) {
  response.status = status;
  response.set_content(text + "\n", kTextType);
}

void AnswerProbe(httplib::Response& response, const absl::Status& status) {
  if (status.ok()) return AnswerText(response, 200, "ok");
  AnswerText(response, 503, std::string(status.message()));
}

// A line for each check, as Kubernetes' own servers write them.
void AnswerVerbose(httplib::Response& response, const HttpServer::Callbacks& callbacks) {
  std::string lines;
  for (const auto& [name, status] : callbacks.checks()) {
    absl::StrAppend(&lines, status.ok() ? "[+]" : "[-]", name, status.ok() ? " ok" : ": ",
                    status.message(), "\n");
  }
  const absl::Status ready = callbacks.ready();
  const std::string verdict = ready.ok() ? "ready" : absl::StrCat("not ready: ", ready.message());
  AnswerText(response, ready.ok() ? 200 : 503, absl::StrCat(lines, verdict));
}

// Whether a browser asks for the page of another origin, or by a name that may be another's.
bool IsForeign(const httplib::Request& request, httplib::Response& response) {
  const std::string site = request.get_header_value("Sec-Fetch-Site");
  const bool navigates =  // By a link; it doesn't get to see what comes.
      request.path == "/" && request.get_header_value("Sec-Fetch-Mode") == "navigate";
  if (!site.empty() && site != "same-origin" && site != "none" && !navigates) {
    AnswerText(response, 403, "Pages of other origins may not ask for this.");
    return true;
  }
  if (IsOwnHost(request.get_header_value("Host"))) return false;
  AnswerText(response, 421,
             "The status isn't shown by this name, which might be anybody's. Ask by an address, "
             "by 'localhost', or by a name without a dot or under .internal, .local, .localhost or "
             ".svc.");
  return true;
}

// What a browser may do with an answer: nothing but show it.
void SetBrowserHeaders(httplib::Response& response) {
  response.set_header("Cache-Control", "no-store");
  response.set_header("X-Content-Type-Options", "nosniff");
  response.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
  response.set_header("Referrer-Policy", "no-referrer");
  response.set_header("X-Frame-Options", "DENY");
  response.set_header("Cross-Origin-Resource-Policy", "same-origin");
}

// The connection that this thread serves is handed over to the events once its header is sent.
thread_local bool watches = false;

// Shows the status. False for other paths.
bool AnswerStatus(EventFeed& events, const httplib::Request& request, httplib::Response& response) {
  if (request.path != "/" && request.path != "/statusz" && request.path != "/events") return false;
  if (IsForeign(request, response)) return true;
  response.status = 200;
  if (request.path == "/") {
    const StatusPage page = MakeStatusPage();
    response.headers.erase("Content-Security-Policy");
    response.set_header("Content-Security-Policy", page.policy);
    response.set_content(page.html, "text/html; charset=utf-8");
  } else if (request.path == "/statusz") {
    response.set_content(*events.Snapshot() + "\n", "application/json");
  } else if (request.method == "HEAD") {
    response.set_content("", kEventsType);
  } else if (!events.Reserve()) {
    AnswerText(response, 503,
               absl::StrCat(events.options().most_viewers, " watch already, as many as may."));
  } else {
    watches = true;
    response.set_content_provider(kEventsType, [](size_t, httplib::DataSink& sink) {
      constexpr absl::string_view kRetry = "retry: 2000\n\n";
      sink.write(kRetry.data(), kRetry.size());
      sink.done();
      return true;
    });
  }
  return true;
}

void Answer(const HttpServer::Callbacks& callbacks, EventFeed& events,
            const httplib::Request& request, httplib::Response& response) {
  SetBrowserHeaders(response);
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
  if (request.path == "/readyz") {
    if (request.has_param("verbose")) return AnswerVerbose(response, callbacks);
    return AnswerProbe(response, callbacks.ready());
  }
  if (AnswerStatus(events, request, response)) return;
  AnswerText(response, 404,
             "Not found. Served here: /, /statusz, /events, /metrics, /livez, /readyz.");
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
      : request_timeout_(options.request_timeout),
        callbacks_(std::move(callbacks)),
        events_(options.events, callbacks_.status) {
    set_socket_options(SetSocketOptions);
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      Answer(callbacks_, events_, request, response);
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

  size_t viewers() const { return events_.viewers(); }

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
    UniqueFd owned(socket);
    if (stopping_) return false;
    fcntl(socket, F_SETFD, FD_CLOEXEC);
    BoundedStream stream(socket, kMaxRequestBytes, Clock::Real().Now() + request_timeout_);
    bool closed = false;
    watches = false;
    const bool answered = process_request(stream, /*close_connection=*/true, closed, nullptr);
    if (std::exchange(watches, false)) {
      if (answered) {
        events_.Watch(std::move(owned));
        return true;
      }
      events_.Release();
    }
    stream.DiscardUnread();
    shutdown(socket, SHUT_RDWR);
    return answered;
  }

  const absl::Duration request_timeout_;
  const Callbacks callbacks_;
  EventFeed events_;
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

size_t HttpServer::viewers() const { return listener_->viewers(); }

}  // namespace millrace
