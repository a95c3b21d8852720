// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/work_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace millrace {
namespace {

TEST(WorkQueue, RunsTasksInTheOrderInWhichTheyCame) {
  std::vector<int> order;
  {
    WorkQueue queue("worker", 1);
    for (int i = 0; i < 5; ++i) {
      queue.Add([&order, i] { order.push_back(i); });
    }
  }
  EXPECT_THAT(order, testing::ElementsAre(0, 1, 2, 3, 4));
}

TEST(WorkQueue, SeveralThreadsRunSeveralTasksAtATime) {
  Mutex mutex;
  CondVar changed;
  int running = 0;  // Each waits for the other: with one thread this would never end.
  WorkQueue queue("worker", 2);
  for (int i = 0; i < 2; ++i) {
    queue.Add([&] {
      MutexLock lock(mutex);
      ++running;
      changed.NotifyAll();
      while (running < 2) changed.Wait(mutex);
    });
  }
  MutexLock lock(mutex);
  while (running < 2) changed.Wait(mutex);
}

TEST(WorkQueue, EndRunsWhatWaits) {
  std::atomic<int> ran{0};
  {
    WorkQueue queue("worker", 2);
    for (int i = 0; i < 100; ++i) queue.Add([&] { ++ran; });
  }
  EXPECT_EQ(ran, 100);
}

}  // namespace
}  // namespace millrace
