// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "server/base/unique_fd.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

// A connection of our own, for what a decent client doesn't do.
class RawConnection {
 public:
  explicit RawConnection(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }

  // Sends all of `text`; false when the server has closed the connection.
  bool Send(const std::string& text) {
    const ssize_t sent = send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
    return sent == static_cast<ssize_t>(text.size());
  }

  // What has come once there is `wanted` in it, or the server has closed the connection.
  std::string ReadUntil(const std::string& wanted) {
    std::string all;
    std::array<char, 4096> piece;
    while (all.find(wanted) == std::string::npos) {
      const ssize_t size = recv(socket_.get(), piece.data(), piece.size(), 0);
      if (size <= 0) break;
      all.append(piece.data(), static_cast<size_t>(size));
    }
    return all;
  }

  // Everything until the server closes the connection.
  std::string ReadAll() {
    std::string all;
    std::array<char, 4096> piece;
    for (;;) {
      const ssize_t size = recv(socket_.get(), piece.data(), piece.size(), 0);
      if (size <= 0) return all;
      all.append(piece.data(), static_cast<size_t>(size));
    }
  }

 private:
  UniqueFd socket_;
};

class HttpServerTest : public ::testing::Test {
 protected:
  void Start(absl::Duration request_timeout = absl::Seconds(20)) {
    HttpServer::Options options;
    options.port = 0;
    options.request_timeout = request_timeout;
    options.events = events_;
    auto server = HttpServer::Create(options, {.metrics =
                                                   [this] {
                                                     ++scrapes_;
                                                     return metrics_;
                                                   },
                                               .live = [this] { return live_.load(); },
                                               .ready = [this] { return ready_; },
                                               .checks = [this] { return checks_; },
                                               .status =
                                                   [this] {
                                                     ++snapshots_;
                                                     return status_;
                                                   }});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void WaitForViewers(size_t count) const {
    while (server_->viewers() != count) sched_yield();
  }

  httplib::Client Client() { return httplib::Client("127.0.0.1", server_->port()); }

  std::string metrics_ = "millrace_streams 1\n";
  std::atomic<int> scrapes_{0};
  std::atomic<bool> live_{true};
  absl::Status ready_;
  std::vector<std::pair<std::string, absl::Status>> checks_;
  std::string status_ = R"({"models":[]})";
  std::atomic<int> snapshots_{0};
  EventFeed::Options events_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, MetricsComeWithTheTypeThatPrometheusExpects) {
  Start();
  const auto response = Client().Get("/metrics");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "millrace_streams 1\n");
  EXPECT_EQ(response->get_header_value("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
}

TEST_F(HttpServerTest, LargeExpositionArrivesWhole) {
  metrics_.assign(8 << 20, 'x');
  Start();
  const auto response = Client().Get("/metrics");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->body, metrics_);
}

TEST_F(HttpServerTest, LivezTellsLifeAndDeath) {
  Start();
  auto response = Client().Get("/livez");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "ok\n");
  live_ = false;
  response = Client().Get("/livez");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 503);
}

TEST_F(HttpServerTest, ReadyzSaysWhyNot) {
  ready_ = absl::UnavailableError("model 'resnet' is loading");
  Start();
  const auto response = Client().Get("/readyz");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 503);
  EXPECT_EQ(response->body, "model 'resnet' is loading\n");
}

TEST_F(HttpServerTest, ReadyzIsOkWhenReady) {
  Start();
  const auto response = Client().Get("/readyz");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "ok\n");
}

TEST_F(HttpServerTest, VerboseReadyzHasALineForEachCheck) {
  ready_ = absl::UnavailableError("model 'b' has no replica");
  checks_ = {{"model 'a'", absl::OkStatus()}, {"model 'b'", absl::UnavailableError("no replica")}};
  Start();
  const auto response = Client().Get("/readyz?verbose");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 503);
  EXPECT_EQ(response->body,
            "[+]model 'a' ok\n[-]model 'b': no replica\nnot ready: model 'b' has no replica\n");
}

TEST_F(HttpServerTest, PageAllowsNothingButItsOwnScriptAndStyle) {
  Start();
  const auto response = Client().Get("/");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->get_header_value("Content-Type"), "text/html; charset=utf-8");
  ASSERT_EQ(response->get_header_value_count("Content-Security-Policy"), 1U);
  const std::string policy = response->get_header_value("Content-Security-Policy");
  EXPECT_THAT(policy, StartsWith("default-src 'none'; script-src 'nonce-"));
  const std::string nonce = policy.substr(policy.find("nonce-") + 6, 32);
  EXPECT_THAT(nonce, MatchesRegex("[0-9a-f]+"));
  EXPECT_THAT(response->body, HasSubstr("<script nonce=\"" + nonce + "\">"));
  EXPECT_THAT(response->body, HasSubstr("<style nonce=\"" + nonce + "\">"));
  EXPECT_THAT(response->body, Not(HasSubstr("NONCE")));
  const auto again = Client().Get("/");
  ASSERT_TRUE(again);
  EXPECT_NE(again->get_header_value("Content-Security-Policy"), policy);
}

TEST_F(HttpServerTest, SnapshotIsMadeOnceHoweverManyAsk) {
  events_.interval = absl::Hours(1);
  Start();
  EXPECT_EQ(snapshots_, 0);
  for (int i = 0; i < 5; ++i) {
    const auto response = Client().Get("/statusz");
    ASSERT_TRUE(response);
    EXPECT_EQ(response->body, status_ + "\n");
    EXPECT_EQ(response->get_header_value("Content-Type"), "application/json");
  }
  for (int i = 0; i < 3; ++i) {
    RawConnection viewer(server_->port());
    viewer.Send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_THAT(viewer.ReadUntil("data: " + status_ + "\n\n"),
                HasSubstr("data: " + status_ + "\n\n"));
  }
  EXPECT_EQ(snapshots_, 1);
}

TEST_F(HttpServerTest, ViewersAreSentNewSnapshotsAndTakeNoThread) {
  events_.interval = absl::Milliseconds(10);
  events_.most_viewers = 2 * HttpServer::kThreads;
  Start();
  std::vector<std::unique_ptr<RawConnection>> viewers;
  for (size_t i = 0; i < events_.most_viewers; ++i) {
    viewers.push_back(std::make_unique<RawConnection>(server_->port()));
    viewers.back()->Send("GET /events HTTP/1.1\r\nHost: 127.0.0.1:8002\r\n\r\n");
    EXPECT_THAT(viewers.back()->ReadUntil("data: "), HasSubstr("text/event-stream"));
  }
  const auto probe = Client().Get("/livez");
  ASSERT_TRUE(probe);
  EXPECT_EQ(probe->status, 200);
  const auto refused = Client().Get("/events");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 503);
  for (int i = 0; i < 10; ++i) {
    for (const auto& viewer : viewers) {
      EXPECT_THAT(viewer->ReadUntil("data: "), HasSubstr("data: "));
    }
  }
}

TEST_F(HttpServerTest, ViewerWhoDoesntReadIsDroppedAndLeavesItsPlace) {
  status_.assign(1 << 20, 'x');  // More than the kernel keeps for it.
  events_ = {
      .most_viewers = 1, .interval = absl::Milliseconds(10), .patience = absl::Milliseconds(100)};
  Start();
  RawConnection slow(server_->port());
  slow.Send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  WaitForViewers(1);
  WaitForViewers(0);
  RawConnection next(server_->port());
  next.Send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(next.ReadUntil("xxx\n\n"), HasSubstr("xxx\n\n"));
}

TEST_F(HttpServerTest, NoSnapshotIsMadeOnceTheLastViewerHasGone) {
  events_.interval = absl::Milliseconds(10);
  Start(absl::Milliseconds(300));
  {
    RawConnection viewer(server_->port());
    viewer.Send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    viewer.ReadUntil("data: ");
  }
  WaitForViewers(0);
  const int made = snapshots_;
  RawConnection silent(server_->port());  // It is closed at its deadline, many intervals later.
  EXPECT_THAT(silent.ReadAll(), IsEmpty());
  EXPECT_EQ(snapshots_, made);
}

TEST_F(HttpServerTest, StatusIsRefusedToOtherOriginsAndStrangeNames) {
  Start();
  for (const char* path : {"/", "/statusz", "/events"}) {
    auto response = Client().Get(path, {{"Host", "evil.example"}});
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 421) << path;
    response = Client().Get(path, {{"Sec-Fetch-Site", "cross-site"}});
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 403) << path;
  }
  EXPECT_EQ(snapshots_, 0);
  const auto scrape = Client().Get("/metrics", {{"Host", "millrace.example"}});
  ASSERT_TRUE(scrape);
  EXPECT_EQ(scrape->status, 200);
}

TEST_F(HttpServerTest, OtherPathsAreNotFound) {
  Start();
  for (const char* path :
       {"/index.html", "/statusz/", "/metrics/", "/metricsx", "/../metrics", "/livez/../x"}) {
    const auto response = Client().Get(path);
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 404) << path;
  }
}

TEST_F(HttpServerTest, HeadHasTheHeadersButNoBody) {
  Start();
  const auto response = Client().Head("/metrics");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->get_header_value("Content-Length"), std::to_string(metrics_.size()));
  EXPECT_THAT(response->body, IsEmpty());
}

TEST_F(HttpServerTest, OnlyGetAndHeadAreServed) {
  Start();
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}) {
    httplib::Request request;
    request.method = method;
    request.path = "/metrics";
    request.body = "x";
    const auto response = Client().send(request);
    ASSERT_TRUE(response) << method;
    EXPECT_EQ(response->status, 405) << method;
    EXPECT_EQ(response->get_header_value("Allow"), "GET, HEAD");
  }
  EXPECT_EQ(scrapes_, 0);
}

TEST_F(HttpServerTest, ConnectionsAreClosedAfterTheirAnswer) {
  Start();
  RawConnection connection(server_->port());
  const std::string get = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";
  ASSERT_TRUE(connection.Send(get));
  const std::string answer = connection.ReadAll();  // Ends because the server closes.
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr("Connection: close"));
}

TEST_F(HttpServerTest, OversizeHeaderIsRefused) {
  Start();
  RawConnection connection(server_->port());
  connection.Send("GET /metrics HTTP/1.1\r\n");
  for (int i = 0; i < 40; ++i) connection.Send("X-Fill: " + std::string(1000, 'a') + "\r\n");
  connection.Send("\r\n");
  EXPECT_THAT(connection.ReadAll(), Not(HasSubstr("200 OK")));
  EXPECT_EQ(scrapes_, 0);
}

TEST_F(HttpServerTest, LineWithoutEndIsRefused) {
  Start();
  RawConnection connection(server_->port());
  // Far more than socket buffers hold: sending ends because the server stops reading and closes.
  bool open = true;
  for (int i = 0; open && i < 64; ++i) open = connection.Send(std::string(1 << 20, 'a'));
  EXPECT_FALSE(open);
  EXPECT_EQ(scrapes_, 0);
}

TEST_F(HttpServerTest, OversizeBodyIsNotRead) {
  Start();
  RawConnection connection(server_->port());
  connection.Send("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
  EXPECT_THAT(connection.ReadAll(), StartsWith("HTTP/1.1 405"));
}

TEST_F(HttpServerTest, GarbageIsRefused) {
  Start();
  RawConnection connection(server_->port());
  connection.Send(std::string("\x16\x03\x01\x00\xff garbage\r\n\r\n", 17));
  EXPECT_THAT(connection.ReadAll(), Not(HasSubstr("200 OK")));
}

TEST_F(HttpServerTest, SilentConnectionsAreClosedAtTheirDeadline) {
  Start(absl::Milliseconds(100));
  std::vector<std::unique_ptr<RawConnection>> silent;
  for (int i = 0; i < 2 * HttpServer::kThreads; ++i) {
    silent.push_back(std::make_unique<RawConnection>(server_->port()));
  }
  for (const auto& connection : silent) EXPECT_THAT(connection->ReadAll(), IsEmpty());
}

TEST_F(HttpServerTest, ConcurrentScrapesAreAllAnswered) {
  metrics_.assign(200'000, 'x');
  Start();
  std::atomic<int> whole{0};
  {
    std::vector<std::unique_ptr<Thread>> scrapers;
    for (int t = 0; t < 8; ++t) {
      scrapers.push_back(std::make_unique<Thread>("scraper", [&] {
        for (int i = 0; i < 20; ++i) {
          const auto response = Client().Get("/metrics");
          if (response && response->status == 200 && response->body == metrics_) ++whole;
        }
      }));
    }
  }
  EXPECT_EQ(whole, 160);
  EXPECT_EQ(scrapes_, 160);
}

TEST_F(HttpServerTest, TakenPortIsAnErrorThatNamesIt) {
  Start();
  HttpServer::Options options;
  options.port = server_->port();
  const auto second = HttpServer::Create(options, {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("127.0.0.1:" + std::to_string(server_->port())));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("Address already in use"));
}

TEST_F(HttpServerTest, FreedPortCanBeTakenAtOnce) {
  Start();
  ASSERT_TRUE(Client().Get("/livez"));
  HttpServer::Options options;
  options.port = server_->port();
  server_.reset();
  const auto second = HttpServer::Create(options, {});
  EXPECT_TRUE(second.ok()) << second.status();
}

TEST_F(HttpServerTest, BadAddressIsAnErrorThatNamesIt) {
  HttpServer::Options options;
  options.host = "256.1.1.1";
  auto server = HttpServer::Create(options, {});
  EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("256.1.1.1"));
  options.host = "127.0.0.1";
  options.port = 70'000;
  server = HttpServer::Create(options, {});
  EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("70000"));
}

TEST_F(HttpServerTest, StopsAtOnceWhenNothingIsAsked) {
  for (int i = 0; i < 50; ++i) {
    Start();
    server_.reset();
  }
}

}  // namespace
}  // namespace millrace
