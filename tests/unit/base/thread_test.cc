// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

namespace millrace {
namespace {

int FirstAllowedCpu() {
  cpu_set_t set;
  sched_getaffinity(0, sizeof(set), &set);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &set)) ++cpu;
  return cpu;
}

TEST(Thread, IsJoinedByItsDestructor) {
  bool ran = false;
  {
    Thread thread("short", [&] { ran = true; });
  }
  EXPECT_TRUE(ran);
}

TEST(Thread, CutsItsNameToTheKernelsLimit) {
  char name[16] = {};
  {
    Thread thread("a-name-that-is-too-long",
                  [&] { pthread_getname_np(pthread_self(), name, sizeof(name)); });
  }
  EXPECT_STREQ(name, "a-name-that-is-");
}

TEST(Thread, RunsOnItsCpusOnly) {
  const int cpu = FirstAllowedCpu();
  cpu_set_t set;
  {
    Thread thread("pinned", [&] {
      PinThisThread({cpu});
      sched_getaffinity(0, sizeof(set), &set);
    });
  }
  EXPECT_EQ(CPU_COUNT(&set), 1);
  EXPECT_TRUE(CPU_ISSET(cpu, &set));
}

TEST(Thread, CpusOfAProcessAreThoseOfItsMainThread) {
  const std::vector<int> before = CpusOf(getpid());
  EXPECT_EQ(before.front(), FirstAllowedCpu());
  {
    Thread thread("pinned", [&] { PinThisThread({before.back()}); });
  }
  EXPECT_EQ(CpusOf(getpid()), before);
  PinThisThread({before.back()});
  EXPECT_EQ(CpusOf(getpid()), std::vector<int>{before.back()});
  PinThisThread(before);
}

TEST(Thread, ProcessThatHasGoneRunsNowhere) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(CpusOf(child).empty());
}

}  // namespace
}  // namespace millrace
