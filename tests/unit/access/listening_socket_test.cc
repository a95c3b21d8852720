// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/listening_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ListeningSocketTest : public testing::Test {
 protected:
  ~ListeningSocketTest() override { fs::remove_all(folder_); }

  std::string path() const { return (folder_ / "socket").string(); }
  std::string address() const { return "unix:" + path(); }

 private:
  const fs::path folder_ = [] {
    std::string made = (fs::temp_directory_path() / "socket-XXXXXX").string();
    return fs::path(mkdtemp(made.data()));
  }();
};

TEST_F(ListeningSocketTest, PortZeroIsOneThatIsFree) {
  const auto socket = ListeningSocket::Open("127.0.0.1:0", {});
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_EQ(socket->reach(), Reach::kLoopback);
  EXPECT_NE(socket->address(), "127.0.0.1:0");
  const auto again = ListeningSocket::Open(socket->address(), {});
  EXPECT_EQ(again.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(again.status().message(), HasSubstr(socket->address()));
  EXPECT_THAT(again.status().message(), HasSubstr("taken"));
}

TEST_F(ListeningSocketTest, EveryAddressIsTheNetwork) {
  for (const char* address : {"0.0.0.0:0", "[::]:0"}) {
    const auto socket = ListeningSocket::Open(address, {});
    ASSERT_TRUE(socket.ok()) << socket.status();
    EXPECT_EQ(socket->reach(), Reach::kNetwork);
  }
}

TEST_F(ListeningSocketTest, NameOfTheLoopbackIsTheLoopback) {
  const auto socket = ListeningSocket::Open("localhost:0", {});
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_EQ(socket->reach(), Reach::kLoopback);
}

TEST_F(ListeningSocketTest, AddressOfAnotherMachineIsAnError) {
  const auto socket = ListeningSocket::Open("192.0.2.1:0", {});
  EXPECT_EQ(socket.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(socket.status().message(), HasSubstr("192.0.2.1:0"));
}

TEST_F(ListeningSocketTest, FileHasItsModeWhateverTheUmask) {
  const mode_t before = umask(0);
  for (const mode_t mode : {0600, 0660, 0666}) {
    umask(mode == 0666 ? 0077 : 0);
    const auto socket = ListeningSocket::Open(address(), {.mode = mode});
    ASSERT_TRUE(socket.ok()) << socket.status();
    struct stat file = {};
    ASSERT_EQ(stat(path().c_str(), &file), 0);
    EXPECT_EQ(file.st_mode & 0777, mode);
  }
  umask(before);
  EXPECT_FALSE(fs::exists(path()));  // It goes with its socket.
}

TEST_F(ListeningSocketTest, FileOfALiveServerIsTakenAndThatOfADeadOneIsReplaced) {
  {
    const auto socket = ListeningSocket::Open(address(), {});
    ASSERT_TRUE(socket.ok()) << socket.status();
    EXPECT_THAT(ListeningSocket::Open(address(), {}).status().message(), HasSubstr("taken"));
    EXPECT_TRUE(fs::exists(path()));
    fs::rename(path(), path() + ".kept");
  }
  fs::rename(path() + ".kept", path());  // As a server leaves it that was killed.
  EXPECT_TRUE(ListeningSocket::Open(address(), {}).ok());
}

TEST_F(ListeningSocketTest, FileThatIsNoSocketStays) {
  std::ofstream(path()) << "precious";
  EXPECT_THAT(ListeningSocket::Open(address(), {}).status().message(), HasSubstr("no socket"));
  EXPECT_EQ(fs::file_size(path()), 8u);
}

}  // namespace
}  // namespace millrace
