// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/service_notifier.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/unique_fd.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// What a service manager listens at: `name` as in NOTIFY_SOCKET.
UniqueFd Listen(const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, name.data(), name.size());
  if (name[0] == '@') address.sun_path[0] = '\0';
  UniqueFd receiver(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  EXPECT_EQ(bind(receiver.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  return receiver;
}

std::string Receive(const UniqueFd& receiver) {
  char text[256];
  const ssize_t size = recv(receiver.get(), text, sizeof(text), 0);
  return size < 0 ? "nothing" : std::string(text, static_cast<size_t>(size));
}

std::string Name(const std::string& kind) {
  return absl::StrCat("@millrace-notifier-test-", kind, "-", getpid());
}

TEST(ServiceNotifier, ReachesAnAbstractSocket) {
  const UniqueFd manager = Listen(Name("abstract"));

  EXPECT_TRUE(ServiceNotifier(Name("abstract"), false).Tell("READY=1\nSTATUS=up").ok());

  EXPECT_EQ(Receive(manager), "READY=1\nSTATUS=up");
}

TEST(ServiceNotifier, ReachesASocketInTheFileSystem) {
  char folder[] = "/tmp/notifier_XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string path = absl::StrCat(folder, "/socket");
  const UniqueFd manager = Listen(path);

  EXPECT_TRUE(ServiceNotifier(path, false).Tell("STOPPING=1").ok());

  EXPECT_EQ(Receive(manager), "STOPPING=1");
  unlink(path.c_str());
  rmdir(folder);
}

TEST(ServiceNotifier, ReloadingCarriesTheMonotonicTime) {
  const UniqueFd manager = Listen(Name("reloading"));

  EXPECT_TRUE(ServiceNotifier(Name("reloading"), false).TellReloading().ok());

  const std::string told = Receive(manager);
  ASSERT_THAT(told, StartsWith("RELOADING=1\nMONOTONIC_USEC="));
  timespec now = {};  // Of the clock that managers compare it with.
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t microseconds = 0;
  ASSERT_TRUE(absl::SimpleAtoi(told.substr(told.rfind('=') + 1), &microseconds)) << told;
  const absl::Duration age = absl::DurationFromTimespec(now) - absl::Microseconds(microseconds);
  EXPECT_GE(age, absl::ZeroDuration());
  EXPECT_LT(age, absl::Minutes(1));
}

TEST(ServiceNotifier, WithoutASocketNobodyIsTold) {
  EXPECT_TRUE(ServiceNotifier("", true).Tell("READY=1").ok());
  EXPECT_FALSE(ServiceNotifier("", true).has_watchdog());
}

TEST(ServiceNotifier, SaysWhatIsWrongWithTheSocket) {
  EXPECT_THAT(ServiceNotifier("relative", false).Tell("READY=1").message(),
              HasSubstr("'relative'"));
  EXPECT_THAT(ServiceNotifier("@" + std::string(200, 'x'), false).Tell("READY=1").message(),
              HasSubstr("less than 108 bytes"));
  EXPECT_EQ(ServiceNotifier(Name("nobody"), false).Tell("READY=1").code(),
            absl::StatusCode::kUnavailable);
}

TEST(ServiceNotifier, TheWatchdogOfAnotherProcessIsNotOurs) {
  setenv("NOTIFY_SOCKET", "@manager", 1);
  setenv("WATCHDOG_USEC", "3000000", 1);
  setenv("WATCHDOG_PID", "1", 1);
  EXPECT_FALSE(ServiceNotifier::FromEnvironment().has_watchdog());

  setenv("WATCHDOG_PID", absl::StrCat(getpid()).c_str(), 1);
  EXPECT_TRUE(ServiceNotifier::FromEnvironment().has_watchdog());

  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) unsetenv(name);
}

}  // namespace
}  // namespace millrace
