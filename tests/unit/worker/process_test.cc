// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

namespace millrace {
namespace {

TEST(Process, AForkToTheSubreaperIsItsChild) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  const pid_t test = getpid();
  const auto pid = ForkToSubreaper([&] { _exit(DieWithServer(test).ok() ? 7 : 1); });
  ASSERT_TRUE(pid.ok()) << pid.status();
  int status = 0;
  ASSERT_EQ(waitpid(*pid, &status, 0), *pid);  // Only a parent can wait.
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(Process, AnotherParentThanTheServerIsAnError) {
  const pid_t child = fork();
  if (child == 0) _exit(absl::IsUnavailable(DieWithServer(1 << 30)) ? 7 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(Process, WhatAChildDoesToTheEnvironmentStaysThere) {
  EXPECT_TRUE(RunInChild([] {
                setenv("MILLRACE_CHILD", "1", 1);
                return absl::OkStatus();
              }).ok());
  EXPECT_EQ(std::getenv("MILLRACE_CHILD"), nullptr);
}

TEST(Process, AChildsErrorComesBackAlsoItsDeath) {
  EXPECT_EQ(RunInChild([] { return absl::NotFoundError("no such model"); }),
            absl::NotFoundError("no such model"));
  const absl::Status died = RunInChild([]() -> absl::Status { _exit(3); });
  EXPECT_EQ(died, absl::InternalError("exited with 3"));
}

// Private memory of the kernel's, as every allocator gets it; nullptr where there is no more.
void* Allocate(size_t bytes) {
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

TEST(Process, AskingForMoreMemoryThanIsAllowedFailsAndHarmsNothing) {
  const absl::Status status = RunInChild([] {
    constexpr size_t kMebibyte = 1 << 20;
    const uint64_t before = PrivateMemory();
    if (before == 0 || before != PrivateMemory()) return absl::InternalError("wrong measure");
    if (Allocate(64 * kMebibyte) == nullptr) return absl::InternalError("got nothing");
    if (PrivateMemory() != before + 64 * kMebibyte) return absl::InternalError("wrong difference");
    absl::Status limited = LimitMemory(PrivateMemory() + 8 * kMebibyte);
    if (!limited.ok()) return limited;
    if (Allocate(64 * kMebibyte) != nullptr) return absl::InternalError("got more than allowed");
    if (Allocate(4 * kMebibyte) == nullptr) return absl::InternalError("got less than allowed");
    limited = LimitMemory(uint64_t{1} << 40);
    if (Allocate(64 * kMebibyte) != nullptr) return absl::InternalError("raised its own limit");
    return limited;
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Process, MemoryThatDoesNotCountAsPrivateIsLimitedToo) {
  if (PrivateMemory() > uint64_t{1} << 40) {
    GTEST_SKIP() << "a sanitizer's shadow counts as private, and gives this terabytes of room";
  }
  const absl::Status status = RunInChild([] {
    constexpr size_t kPiece = 64 << 20;
    const absl::Status limited = LimitMemory(PrivateMemory() + 2 * kPiece);
    if (!limited.ok()) return limited;
    for (int piece = 0; piece < 4096; ++piece) {
      void* const memory = Allocate(kPiece);
      if (memory == nullptr) {
        return piece > 2 ? absl::OkStatus() : absl::InternalError("it does count");
      }
      mprotect(memory, kPiece, PROT_READ);
    }
    return absl::InternalError("got 256 GiB");
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Process, OnlyTheDescriptorsThatAreKeptStayOpen) {
  const absl::Status status = RunInChild([] {
    int fds[2];
    if (pipe(fds) != 0) return absl::InternalError("pipe");
    UniqueFd read_end(fds[0]);
    UniqueFd write_end(fds[1]);
    KeepDescriptors({&write_end, &read_end});
    if (write_end.get() != 3 || read_end.get() != 4) return absl::InternalError("wrong numbers");
    char token = 'x';
    if (write(3, &token, 1) != 1 || read(4, &token, 1) != 1)
      return absl::InternalError("wrong ends");
    for (int fd = 5; fd < 256; ++fd) {
      if (fcntl(fd, F_GETFD) >= 0) return absl::InternalError("one is left");
    }
    _exit(7);  // The pipe to the test is closed, too.
  });
  EXPECT_EQ(status, absl::InternalError("exited with 7"));
}

TEST(Process, AChildsTextComesBackAndSoDoesItsError) {
  EXPECT_EQ(AskChild([] { return absl::StatusOr<std::string>(std::string("a\0b", 3)); }).value(),
            std::string("a\0b", 3));
  EXPECT_EQ(AskChild([]() -> absl::StatusOr<std::string> {
              return absl::InvalidArgumentError("no");
            }).status(),
            absl::InvalidArgumentError("no"));
  EXPECT_EQ(AskChild([]() -> absl::StatusOr<std::string> { std::abort(); }).status().code(),
            absl::StatusCode::kInternal);
}

TEST(Process, ATextThatIsTooLongIsAnErrorAndTheLongestIsNot) {
  const auto of_size = [](size_t size) {
    return AskChild([&] { return absl::StatusOr<std::string>(std::string(size, 'x')); });
  };
  EXPECT_EQ(of_size(64 << 10).value().size(), 64 << 10);
  EXPECT_EQ(of_size((64 << 10) + 1).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace millrace
