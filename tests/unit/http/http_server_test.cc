// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <httplib.h>
#include <netinet/in.h>
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
    auto server =
        HttpServer::Create(options, {[this] {
                                       ++scrapes_;
                                       return metrics_;
                                     },
                                     [this] { return live_.load(); }, [this] { return ready_; }});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  httplib::Client Client() { return httplib::Client("127.0.0.1", server_->port()); }

  std::string metrics_ = "millrace_streams 1\n";
  std::atomic<int> scrapes_{0};
  std::atomic<bool> live_{true};
  absl::Status ready_;
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
  const auto response = Client().Get("/readyz?verbose=1");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "ok\n");
}

TEST_F(HttpServerTest, OtherPathsAreNotFound) {
  Start();
  for (const char* path : {"/", "/metrics/", "/metricsx", "/../metrics", "/livez/../x"}) {
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
