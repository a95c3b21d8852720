// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/mailbox.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "server/base/thread.h"
#include "server/base/unique_fd.h"

namespace millrace {
namespace {

// Two threads as the two processes; the completion event as the replica uses it.
class MailboxTest : public testing::Test {
 protected:
  void WorkerCompletes(Mailbox& worker) {
    if (!worker.Complete()) return;
    const uint64_t one = 1;
    ASSERT_EQ(write(event_.get(), &one, sizeof(one)), sizeof(one));
  }

  // Waits as the replica's thread does.
  void ServerWaits(Mailbox& server, bool spin) {
    while (!server.TakeCompletion(spin)) {
      if (!server.PrepareToSleep()) continue;
      pollfd entry = {.fd = event_.get(), .events = POLLIN, .revents = 0};
      ASSERT_EQ(poll(&entry, 1, 60'000), 1) << "A wake-up was lost.";
      server.WokeUp();
      uint64_t count;
      ASSERT_EQ(read(event_.get(), &count, sizeof(count)), sizeof(count));
    }
  }

  const std::unique_ptr<MailboxWords> words_ = std::make_unique<MailboxWords>();
  const UniqueFd event_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

TEST_F(MailboxTest, HandsBuffersOverOneAtATime) {
  Mailbox server(words_.get());
  Mailbox worker(words_.get());
  EXPECT_FALSE(server.TakeCompletion(false));
  server.Post(7);
  EXPECT_EQ(worker.WaitForBatch(), 7);
  EXPECT_FALSE(server.TakeCompletion(true));
  EXPECT_FALSE(worker.Complete());  // The server doesn't sleep.
  EXPECT_TRUE(server.TakeCompletion(false));
  EXPECT_FALSE(server.TakeCompletion(false));
}

TEST_F(MailboxTest, ServerThatSleepsIsToBeWoken) {
  Mailbox server(words_.get());
  Mailbox worker(words_.get());
  server.Post(1);
  worker.WaitForBatch();
  EXPECT_TRUE(server.PrepareToSleep());
  EXPECT_TRUE(worker.Complete());
  server.WokeUp();
  EXPECT_TRUE(server.TakeCompletion(false));
}

TEST_F(MailboxTest, ServerDoesNotSleepOverACompletion) {
  Mailbox server(words_.get());
  Mailbox worker(words_.get());
  server.Post(1);
  worker.WaitForBatch();
  worker.Complete();
  EXPECT_FALSE(server.PrepareToSleep());
  EXPECT_TRUE(server.TakeCompletion(false));
  EXPECT_TRUE(server.PrepareToSleep());
}

TEST_F(MailboxTest, ResetMakesItNewForTheNextProcess) {
  Mailbox server(words_.get());
  {
    Mailbox dead(words_.get());
    server.Post(3);
    dead.WaitForBatch();
    dead.Complete();
    server.TakeCompletion(false);
    server.Post(4);  // It dies while it runs this one.
    server.PrepareToSleep();
  }
  server.Reset();
  Mailbox next(words_.get());
  EXPECT_FALSE(server.TakeCompletion(false));
  server.Post(5);
  EXPECT_EQ(next.WaitForBatch(), 5);
  EXPECT_FALSE(next.Complete());
  EXPECT_TRUE(server.TakeCompletion(false));
  EXPECT_FALSE(server.TakeCompletion(false));
}

TEST_F(MailboxTest, CountersWrapAround) {
  words_->posted = words_->completed = UINT32_MAX;
  Mailbox worker(words_.get());
  words_->buffer = 9;
  words_->posted.fetch_add(1);
  EXPECT_EQ(worker.WaitForBatch(), 9);
  worker.Complete();
  EXPECT_EQ(words_->completed, 0);
}

TEST_F(MailboxTest, NoWakeUpIsLostInManyRounds) {
  constexpr uint32_t kRounds = 100'000;
  Mailbox server(words_.get());
  std::atomic<uint32_t> wrong = 0;
  Thread worker_thread("worker", [&] {
    Mailbox worker(words_.get());
    for (uint32_t i = 0; i < kRounds; ++i) {
      if (worker.WaitForBatch() != i) ++wrong;
      WorkerCompletes(worker);
    }
  });
  for (uint32_t i = 0; i < kRounds; ++i) {
    server.Post(i);
    ServerWaits(server, /*spin=*/i % 3 == 0);
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace millrace
