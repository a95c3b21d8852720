// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

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

}  // namespace
}  // namespace millrace
