// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/control_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "server/base/thread.h"

namespace millrace {
namespace {

class ControlSocketTest : public testing::Test {
 protected:
  ControlSocketTest() : ends_(*ControlSocket::CreatePair()) {}

  ControlSocket& ours() { return ends_.first; }
  ControlSocket& theirs() { return ends_.second; }

  std::pair<ControlSocket, ControlSocket> ends_;
};

TEST_F(ControlSocketTest, MessagesComeWholeAndInOrder) {
  const std::string long_text(ControlSocket::kMostBytes, 'x');
  ASSERT_TRUE(ours().Send("first").ok());
  ASSERT_TRUE(ours().Send(std::string("with\0zero", 9)).ok());
  EXPECT_EQ(theirs().Receive()->text, "first");
  EXPECT_EQ(theirs().Receive()->text, std::string("with\0zero", 9));
  ASSERT_TRUE(ours().Send(long_text).ok());
  EXPECT_EQ(theirs().Receive()->text, long_text);
  ASSERT_TRUE(theirs().Send("back").ok());
  EXPECT_EQ(ours().Receive()->text, "back");
}

TEST_F(ControlSocketTest, FileDescriptorsCross) {
  const UniqueFd event(eventfd(5, EFD_CLOEXEC));
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  const UniqueFd read_end(pipe_fds[0]);
  const UniqueFd write_end(pipe_fds[1]);
  ASSERT_TRUE(ours().Send("two", {event.get(), write_end.get()}).ok());
  const auto message = theirs().Receive();
  ASSERT_TRUE(message.ok()) << message.status();
  ASSERT_EQ(message->fds.size(), 2);
  uint64_t count = 0;
  EXPECT_EQ(read(message->fds[0].get(), &count, sizeof(count)), sizeof(count));
  EXPECT_EQ(count, 5);
  char byte = 'z';
  EXPECT_EQ(write(message->fds[1].get(), &byte, 1), 1);
  EXPECT_EQ(read(read_end.get(), &byte, 1), 1);
  for (const UniqueFd& fd : message->fds) {
    EXPECT_NE(fd.get(), event.get());
    EXPECT_EQ(fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  }
}

TEST_F(ControlSocketTest, AsManyFileDescriptorsCrossAsMayAndNoMore) {
  const UniqueFd event(eventfd(0, EFD_CLOEXEC));
  ASSERT_TRUE(ours().Send("most", std::vector<int>(ControlSocket::kMostFds, event.get())).ok());
  EXPECT_EQ(theirs().Receive()->fds.size(), ControlSocket::kMostFds);

  // A peer that sends more is refused, and what came is closed again.
  const std::vector<int> fds(ControlSocket::kMostFds + 4, event.get());
  std::string text = "too many";
  iovec data = {.iov_base = text.data(), .iov_len = text.size()};
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  msghdr raw = {};
  raw.msg_iov = &data;
  raw.msg_iovlen = 1;
  raw.msg_control = control.data();
  raw.msg_controllen = control.size();
  cmsghdr* const part = CMSG_FIRSTHDR(&raw);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::copy_n(reinterpret_cast<const char*>(fds.data()), fds.size() * sizeof(int),
              reinterpret_cast<char*>(CMSG_DATA(part)));
  const int next_before = UniqueFd(dup(event.get())).get();
  ASSERT_GT(sendmsg(ours().fd(), &raw, 0), 0);
  EXPECT_EQ(theirs().Receive().status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(UniqueFd(dup(event.get())).get(), next_before) << "File descriptors leaked.";
}

TEST_F(ControlSocketTest, PeerThatHasGoneIsUnavailable) {
  ASSERT_TRUE(theirs().Send("last words").ok());
  theirs().release();
  EXPECT_EQ(ours().Receive()->text, "last words");
  EXPECT_EQ(ours().Receive().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ours().Send("hello?").code(), absl::StatusCode::kUnavailable);
}

TEST_F(ControlSocketTest, PeerThatGoesWhileOneWaitsIsUnavailable) {
  const Thread leaver("leaver", [&] { theirs().release(); });
  EXPECT_EQ(ours().Receive().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ControlSocketTest, SilenceIsADeadlineExceeded) {
  EXPECT_EQ(ours().Receive(absl::Milliseconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ours().Receive(absl::ZeroDuration()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ours().Receive(-absl::Hours(1)).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ControlSocketTest, LongTimeoutWaits) {
  const Thread answerer("answerer", [&] { EXPECT_TRUE(theirs().Send("here").ok()); });
  const auto message =
      ours().Receive(absl::Hours(24 * 50));  // More milliseconds than an int holds.
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(message->text, "here");
}

TEST_F(ControlSocketTest, MessageThatIsTooLongIsRefusedOnBothSides) {
  const std::string text(ControlSocket::kMostBytes + 1, 'x');
  EXPECT_EQ(ours().Send(text).code(), absl::StatusCode::kResourceExhausted);
  ASSERT_EQ(send(ours().fd(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(theirs().Receive().status().code(), absl::StatusCode::kInternal);
  ASSERT_TRUE(ours().Send("short").ok());
  EXPECT_EQ(theirs().Receive()->text, "short");
}

TEST_F(ControlSocketTest, EndsAreClosedOnExec) {
  EXPECT_EQ(fcntl(ours().fd(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  EXPECT_EQ(fcntl(theirs().fd(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

}  // namespace
}  // namespace millrace
