// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/guard_relay.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/seed.h"
#include "tests/unit/access/eventually.h"
#include "tests/unit/access/http2_frames.h"

namespace millrace {
namespace {

using ::testing::StartsWith;

bool IsReady(const UniqueFd& socket, int16_t events, int milliseconds = 20'000) {
  pollfd entry = {.fd = socket.get(), .events = events, .revents = 0};
  return poll(&entry, 1, milliseconds) == 1;
}

void SendAll(const UniqueFd& to, absl::string_view bytes) {
  while (!bytes.empty()) {
    ASSERT_TRUE(IsReady(to, POLLOUT));
    const ssize_t count = send(to.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    ASSERT_TRUE(count > 0 || errno == EAGAIN);
    if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
  }
}

// As many bytes, or fewer where the other side ends.
std::string Receive(const UniqueFd& from, size_t size) {
  std::string got;
  char piece[8192];
  while (got.size() < size && IsReady(from, POLLIN)) {
    const ssize_t count = recv(from.get(), piece, std::min(sizeof(piece), size - got.size()), 0);
    if (count == 0 || (count < 0 && errno != EAGAIN)) break;
    if (count > 0) got.append(piece, static_cast<size_t>(count));
  }
  return got;
}

bool HasEnded(const UniqueFd& socket) { return Receive(socket, 1).empty(); }

// A relay and a connection over it.
class GuardRelayTest : public testing::Test {
 protected:
  explicit GuardRelayTest(GuardRelay::Options options = {.farewell = absl::Milliseconds(300)}) {
    auto made = GuardRelay::Create(options, Clock::Real());
    EXPECT_TRUE(made.ok()) << made.status();
    relay_ = *std::move(made);
    Connect(client_, server_);
  }

  void Connect(UniqueFd& client, UniqueFd& server) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    client.reset(ends[0]);
    server = relay_->Guard(UniqueFd(ends[1]));
    ASSERT_TRUE(server.valid());
  }

  std::unique_ptr<GuardRelay> relay_;
  UniqueFd client_;
  UniqueFd server_;
};

// Frames of DATA, of random bytes and about so many.
std::string RandomFrames(std::mt19937& random, size_t size) {
  std::string bytes = Hello() + Frame(kHeadersFrame, kEndHeadersFlag, 1, 20);
  while (bytes.size() < size) {
    std::string frame = Frame(kDataFrame, 0, 1, random() % 20'000);
    for (size_t i = 9; i < frame.size(); ++i) frame[i] = static_cast<char>(random());
    bytes += frame;
  }
  return bytes;
}

TEST_F(GuardRelayTest, CarriesEveryByteBothWaysAtOnce) {
  std::mt19937 random(TestSeed());
  const std::string out = RandomFrames(random, 5 << 20);
  const std::string back = RandomFrames(random, 3 << 20);
  std::string arrived, came_back;
  {
    Thread sender("client", [&] { SendAll(client_, out); });
    Thread answerer("server", [&] { SendAll(server_, back); });
    Thread receiver("receiver", [&] { arrived = Receive(server_, out.size()); });
    came_back = Receive(client_, back.size());
  }
  EXPECT_TRUE(arrived == out);
  EXPECT_TRUE(came_back == back);
}

TEST_F(GuardRelayTest, HalfClosedClientStillGetsItsAnswers) {
  SendAll(client_, Hello());
  shutdown(client_.get(), SHUT_WR);
  EXPECT_EQ(Receive(server_, 1000), Hello());  // And then the end.
  SendAll(server_, "answer");
  shutdown(server_.get(), SHUT_RDWR);
  EXPECT_EQ(Receive(client_, 1000), "answer");
  EXPECT_TRUE(Eventually([&] { return relay_->open() == 0; }));
}

TEST_F(GuardRelayTest, LastWordsOfTheServerArriveThoughTheClientStillSends) {
  SendAll(client_, Hello());
  ASSERT_EQ(Receive(server_, Hello().size()), Hello());
  const std::string last(100'000, 'z');
  Thread answerer("server", [&] {
    SendAll(server_, last);
    shutdown(server_.get(), SHUT_RDWR);
  });
  for (int i = 0; i < 100; ++i) SendAll(client_, Frame(kDataFrame, 0, 1, 100));
  EXPECT_EQ(Receive(client_, 200'000), last);
}

TEST_F(GuardRelayTest, SenderIsHeldBackByAReaderThatDoesntRead) {
  SendAll(client_, Hello());
  const std::string frame = Frame(kDataFrame, 0, 1, 10'000);
  size_t sent = Hello().size();
  while (IsReady(client_, POLLOUT, 300)) {
    const ssize_t count = send(client_.get(), frame.data(), frame.size(), MSG_NOSIGNAL);
    if (count < 0) continue;
    sent += static_cast<size_t>(count);
    if (static_cast<size_t>(count) < frame.size()) break;  // In the middle of a frame.
    ASSERT_LT(sent, 4u << 20) << "nothing held it back";
  }
  UniqueFd other_client, other_server;  // Which keeps nobody else waiting.
  Connect(other_client, other_server);
  SendAll(other_client, Hello());
  EXPECT_EQ(Receive(other_server, Hello().size()), Hello());
  EXPECT_EQ(Receive(server_, sent).size(), sent);
  EXPECT_EQ(relay_->closed(FrameFault::kMalformed), 0u);
}

TEST_F(GuardRelayTest, FaultEndsTheConnectionBeforeItsBytesArrive) {
  SendAll(client_, Hello());
  ASSERT_EQ(Receive(server_, Hello().size()), Hello());
  SendAll(client_, Frame(kHeadersFrame, 0, 1, 100'000).substr(0, 2'000));
  EXPECT_TRUE(HasEnded(server_));
  EXPECT_TRUE(HasEnded(client_));
  EXPECT_EQ(relay_->closed(FrameFault::kHeaderBlock), 1u);
  EXPECT_TRUE(Eventually([&] { return relay_->open() == 0; }));
  UniqueFd client, server;  // Which ends nobody else's.
  Connect(client, server);
  SendAll(client, Hello());
  EXPECT_EQ(Receive(server, Hello().size()), Hello());
}

TEST_F(GuardRelayTest, ClientThatTakesNothingMoreIsLeftInTheEnd) {
  const std::string much(1 << 20, 'z');
  size_t sent = 0;
  while (IsReady(server_, POLLOUT, 300)) {
    const ssize_t count = send(server_.get(), much.data(), much.size(), MSG_NOSIGNAL);
    if (count > 0) sent += static_cast<size_t>(count);
    ASSERT_LT(sent, 16u << 20) << "nothing held it back";
  }
  shutdown(server_.get(), SHUT_RDWR);
  EXPECT_TRUE(Eventually([&] { return relay_->open() == 0; }));
}

TEST_F(GuardRelayTest, ConnectionsHaveNamesOfTheirOwn) {
  UniqueFd client, server;
  Connect(client, server);
  const auto name = [](const UniqueFd& socket) {
    sockaddr_un peer = {};
    socklen_t length = sizeof(peer);
    EXPECT_EQ(getpeername(socket.get(), reinterpret_cast<sockaddr*>(&peer), &length), 0);
    EXPECT_EQ(peer.sun_path[0], '\0');
    return std::string(peer.sun_path + 1, length - offsetof(sockaddr_un, sun_path) - 1);
  };
  EXPECT_NE(name(server), name(server_));
  EXPECT_THAT(name(server), StartsWith("millrace/"));
}

TEST_F(GuardRelayTest, LackOfDescriptorsEndsTheNewConnectionOnly) {
  SendAll(client_, Hello());
  ASSERT_EQ(Receive(server_, Hello().size()), Hello());
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd other(ends[0]);
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const UniqueFd refused = relay_->Guard(UniqueFd(ends[1]));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_FALSE(refused.valid());
  EXPECT_TRUE(HasEnded(other));
  SendAll(server_, "answer");
  EXPECT_EQ(Receive(client_, 6), "answer");
}

TEST_F(GuardRelayTest, ItsEndEndsAllConnections) {
  SendAll(client_, Hello());
  SendAll(server_, "answer");
  shutdown(server_.get(), SHUT_RDWR);
  relay_.reset();
  EXPECT_EQ(Receive(client_, 1000), "answer");
}

// Random writes, of random clients, some of which end amid theirs.
TEST_F(GuardRelayTest, ManyConnectionsKeepTheirBytesApart) {
  std::mt19937 random(TestSeed());
  struct Talk {
    UniqueFd client, server;
    std::string sent, got;
  };
  std::vector<Talk> talks(50);
  for (Talk& talk : talks) {
    Connect(talk.client, talk.server);
    talk.sent = RandomFrames(random, 200'000);
  }
  std::vector<size_t> at(talks.size());
  char piece[30'000];
  for (bool busy = true; busy;) {
    busy = false;
    for (size_t i = 0; i < talks.size(); ++i) {
      Talk& talk = talks[i];
      if (at[i] < talk.sent.size()) {
        const size_t size = std::min<size_t>(talk.sent.size() - at[i], 1 + random() % 50'000);
        const ssize_t count = send(talk.client.get(), talk.sent.data() + at[i], size, MSG_NOSIGNAL);
        if (count > 0) at[i] += static_cast<size_t>(count);
        if (at[i] == talk.sent.size()) shutdown(talk.client.get(), SHUT_WR);
      }
      const ssize_t count = recv(talk.server.get(), piece, sizeof(piece), 0);
      if (count > 0) talk.got.append(piece, static_cast<size_t>(count));
      busy = busy || count > 0 || (count < 0 && errno == EAGAIN);
    }
  }
  for (const Talk& talk : talks) EXPECT_TRUE(talk.got == talk.sent);
}

}  // namespace
}  // namespace millrace
