// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/connection_queue.h"

#include <gtest/gtest.h>

#include <atomic>

namespace millrace {
namespace {

// Lets threads through once it is open.
class Door {
 public:
  void Open() {
    MutexLock lock(mutex_);
    open_ = true;
    opened_.NotifyAll();
  }
  void Pass() {
    MutexLock lock(mutex_);
    while (!open_) opened_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar opened_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(ConnectionQueue, ServesEveryConnectionBeforeItShutsDown) {
  std::atomic<int> served{0};
  ConnectionQueue queue(2, 4);
  for (int i = 0; i < 100; ++i) queue.enqueue([&served] { ++served; });
  queue.shutdown();
  EXPECT_EQ(served, 100);
}

TEST(ConnectionQueue, FullLineBlocksWhoeverAddsToIt) {
  Door begun;
  Door full;
  Door finish;
  std::atomic<bool> may_finish{false};
  ConnectionQueue queue(1, 2);
  queue.enqueue([&] {
    begun.Open();
    finish.Pass();
  });
  begun.Pass();  // The only thread is in work: from here on connections wait.
  Thread acceptor("accept", [&] {
    queue.enqueue([] {});
    queue.enqueue([] {});
    full.Open();
    queue.enqueue([] {});
    EXPECT_TRUE(may_finish) << "a third connection joined a line of two";
  });
  full.Pass();
  may_finish = true;
  finish.Open();
  queue.shutdown();
}

}  // namespace
}  // namespace millrace
