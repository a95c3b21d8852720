// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/process.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "server/worker/temp_dir.h"

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

TEST(TempDir, IsTmpdirWhileItExistsAndTakesItsFilesAlong) {
  const char* const before = std::getenv("TMPDIR");
  const std::string outer = before ? before : "";
  std::string path;
  {
    const auto made = TempDir::Create();
    ASSERT_TRUE(made.ok()) << made.status();
    path = std::getenv("TMPDIR");
    EXPECT_NE(path, outer);
    FILE* const file = std::fopen((path + "/file").c_str(), "w");
    ASSERT_NE(file, nullptr);
    std::fclose(file);
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  const char* const after = std::getenv("TMPDIR");
  EXPECT_EQ(after ? after : "", outer);
}

}  // namespace
}  // namespace millrace
