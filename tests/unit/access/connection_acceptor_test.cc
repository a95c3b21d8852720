// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/connection_acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include "absl/strings/numbers.h"
#include "gtest/gtest.h"
#include "server/base/mutex.h"
#include "tests/unit/access/eventually.h"

namespace millrace {
namespace {

UniqueFd Connect(const std::string& address) {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  to.sin_port = htons(static_cast<uint16_t>(port));
  UniqueFd connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(connection.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  return connection;
}

// Whether the other side has closed the connection, within a while.
bool IsClosed(const UniqueFd& connection) {
  pollfd entry = {.fd = connection.get(), .events = POLLIN, .revents = 0};
  char byte = 0;
  return poll(&entry, 1, 20'000) == 1 && recv(connection.get(), &byte, 1, 0) <= 0;
}

// An acceptor, and what it has handed over.
class Acceptor {
 public:
  explicit Acceptor(ConnectionAcceptor::Options options,
                    const std::string& listen = "127.0.0.1:0") {
    auto socket = ListeningSocket::Open(listen, {});
    EXPECT_TRUE(socket.ok()) << socket.status();
    address_ = socket->address();
    std::vector<ListeningSocket> sockets;
    sockets.push_back(*std::move(socket));
    auto made = ConnectionAcceptor::Create(std::move(sockets), std::move(options), Clock::Real(),
                                           [this](size_t, UniqueFd connection) {
                                             MutexLock lock(mutex_);
                                             taken_.push_back(std::move(connection));
                                           });
    EXPECT_TRUE(made.ok()) << made.status();
    acceptor_ = *std::move(made);
  }

  const std::string& address() const { return address_; }
  ConnectionAcceptor& operator*() { return *acceptor_; }
  ConnectionAcceptor* operator->() { return acceptor_.get(); }
  size_t taken() {
    MutexLock lock(mutex_);
    return taken_.size();
  }
  // Ends the first one that was handed over, as gRPC does.
  void EndOne() {
    MutexLock lock(mutex_);
    shutdown(taken_.front().get(), SHUT_RDWR);
    taken_.erase(taken_.begin());
  }
  int OptionOfFirst(int level, int option) {
    MutexLock lock(mutex_);
    int value = 0;
    socklen_t length = sizeof(value);
    getsockopt(taken_.front().get(), level, option, &value, &length);
    return value;
  }

 private:
  Mutex mutex_;
  std::string address_;
  std::vector<UniqueFd> taken_;
  std::unique_ptr<ConnectionAcceptor> acceptor_;  // Last: it ends first.
};

TEST(ConnectionAcceptor, CountsUntilAConnectionHasEnded) {
  Acceptor acceptor({.limits = {.most = 2, .most_per_peer = 2}});
  const UniqueFd one = Connect(acceptor.address());
  const UniqueFd two = Connect(acceptor.address());
  ASSERT_TRUE(Eventually([&] { return acceptor.taken() == 2; }));
  EXPECT_EQ(acceptor->open(), 2u);
  EXPECT_TRUE(IsClosed(Connect(acceptor.address())));
  EXPECT_EQ(acceptor->refused(ConnectionRefusal::kLimit), 1u);
  acceptor.EndOne();
  ASSERT_TRUE(Eventually([&] { return acceptor->open() == 1; }));
  EXPECT_TRUE(IsClosed(one));  // The acceptor's own descriptor doesn't hold it open.
  const UniqueFd three = Connect(acceptor.address());
  EXPECT_TRUE(Eventually([&] { return acceptor.taken() == 2; }));
}

TEST(ConnectionAcceptor, OnePeerHasItsShareOnly) {
  Acceptor acceptor({.limits = {.most = 10, .most_per_peer = 1}});
  const UniqueFd one = Connect(acceptor.address());
  ASSERT_TRUE(Eventually([&] { return acceptor.taken() == 1; }));
  EXPECT_TRUE(IsClosed(Connect(acceptor.address())));
  EXPECT_EQ(acceptor->refused(ConnectionRefusal::kPeerLimit), 1u);
  EXPECT_EQ(acceptor->refused(ConnectionRefusal::kLimit), 0u);
}

TEST(ConnectionAcceptor, ConnectionsSendAtOnceAndDontOutliveTheirPeer) {
  Acceptor acceptor({});
  const UniqueFd one = Connect(acceptor.address());
  ASSERT_TRUE(Eventually([&] { return acceptor.taken() == 1; }));
  EXPECT_EQ(acceptor.OptionOfFirst(IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(acceptor.OptionOfFirst(IPPROTO_TCP, TCP_USER_TIMEOUT), 60'000);
}

TEST(ConnectionAcceptor, OnlyUsersOfTheListGetToAUnixSocket) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("acceptor-" + std::to_string(getpid()))).string();
  sockaddr_un to = {};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, path.data(), path.size());
  for (const bool is_listed : {false, true}) {
    Acceptor acceptor({.allowed_users = {is_listed ? getuid() : getuid() + 1}}, "unix:" + path);
    const UniqueFd connection(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(connection.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    if (is_listed) {
      EXPECT_TRUE(Eventually([&] { return acceptor.taken() == 1; }));
    } else {
      EXPECT_TRUE(IsClosed(connection));
      EXPECT_EQ(acceptor->refused(ConnectionRefusal::kUser), 1u);
    }
  }
}

TEST(ConnectionAcceptor, LackOfDescriptorsTurnsAwayAndEndsNothing) {
  Acceptor acceptor({});
  std::vector<UniqueFd> waiting;
  for (int i = 0; i < 5; ++i) {  // Opened before, since there are none to be had later.
    waiting.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  }
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none = {static_cast<rlim_t>(waiting.back().get() + 1), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(acceptor.address().substr(10), &port));
  to.sin_port = htons(static_cast<uint16_t>(port));
  for (const UniqueFd& each : waiting) {
    EXPECT_EQ(connect(each.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    EXPECT_TRUE(IsClosed(each));
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(acceptor->refused(ConnectionRefusal::kDescriptors), waiting.size());
  const UniqueFd later = Connect(acceptor.address());
  EXPECT_TRUE(Eventually([&] { return acceptor.taken() == 1; }));
}

}  // namespace
}  // namespace millrace
