// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/ordering/stream_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

constexpr size_t kPlenty = size_t{1} << 40;

TEST(StreamWindow, RequestStandsInTheWindowUntilItsAnswerIsWritten) {  // Invariant 1
  StreamWindow window(2, kPlenty);
  EXPECT_TRUE(window.HasRoom());
  const uint64_t first = window.Read(10);
  EXPECT_TRUE(window.HasRoom());
  window.Read(10);
  EXPECT_FALSE(window.HasRoom());
  window.Decide(first, 5);
  EXPECT_FALSE(window.HasRoom()) << "Its answer is not written.";
  window.Write(first);
  EXPECT_TRUE(window.HasRoom());
  EXPECT_EQ(window.size(), 1);
}

TEST(StreamWindow, PlacesAreNumberedFromZero) {
  StreamWindow window(8, kPlenty);
  EXPECT_EQ(window.Read(1), 0);
  EXPECT_EQ(window.Read(1), 1);
  window.Decide(0, 0);
  window.Write(0);
  EXPECT_EQ(window.Read(1), 2);
}

TEST(StreamWindow, RequestsThatMayBeDroppedDontStandInTheWindow) {
  StreamWindow window(1, kPlenty);
  for (int i = 0; i < 1000; ++i) window.LetDrop(window.Read(10));
  EXPECT_TRUE(window.HasRoom()) << "How many of them wait is bounded elsewhere.";
  window.Read(10);
  EXPECT_FALSE(window.HasRoom()) << "This one can't be dropped.";
}

TEST(StreamWindow, AnswersOfRequestsThatMayBeDroppedHaveABoundOfTheirOwn) {  // Invariant 2
  StreamWindow window(4, kPlenty);
  EXPECT_EQ(window.most_droppable(), 64);
  const uint64_t slow = window.Read(10);
  window.LetDrop(slow);
  for (int i = 0; i < 64; ++i) {
    EXPECT_TRUE(window.HasRoom()) << i;
    const uint64_t dropped = window.Read(10);
    window.LetDrop(dropped);
    window.Decide(dropped, 0);
  }
  EXPECT_FALSE(window.HasRoom());
  window.Decide(slow, 0);
  window.Write(slow);
  EXPECT_FALSE(window.HasRoom());
  window.Write(slow + 1);
  EXPECT_TRUE(window.HasRoom());
}

TEST(StreamWindow, BoundOfDroppableAnswersGrowsWithTheWindow) {
  EXPECT_EQ(StreamWindow(1, kPlenty).most_droppable(), 64);
  EXPECT_EQ(StreamWindow(16, kPlenty).most_droppable(), 64);
  EXPECT_EQ(StreamWindow(17, kPlenty).most_droppable(), 68);
  EXPECT_EQ(StreamWindow(256, kPlenty).most_droppable(), 1024);
}

TEST(StreamWindow, UndecidedRequestsHoldNoMoreThanTheLimitAndOneMessage) {  // Invariant 3
  StreamWindow window(256, 100);
  const uint64_t first = window.Read(99);
  EXPECT_TRUE(window.HasRoom());
  const uint64_t second = window.Read(1000);
  EXPECT_FALSE(window.HasRoom());
  EXPECT_EQ(window.held_bytes(), 1099);
  window.Decide(second, 0);
  EXPECT_TRUE(window.HasRoom()) << "Though the first one keeps its answer waiting.";
  window.Decide(first, 0);
  EXPECT_EQ(window.held_bytes(), 0);
}

TEST(StreamWindow, SingleRequestPassesWhateverItsSize) {
  StreamWindow window(256, 1);
  const uint64_t huge = window.Read(1 << 30);
  EXPECT_FALSE(window.HasRoom());
  window.Decide(huge, 0);
  EXPECT_TRUE(window.HasRoom());
}

TEST(StreamWindow, UnwrittenAnswersHoldNoMoreThanTheLimit) {  // Invariant 3
  StreamWindow window(256, 100);
  const uint64_t first = window.Read(1);
  const uint64_t second = window.Read(1);
  window.Decide(second, 60);
  EXPECT_TRUE(window.HasRoom());
  window.Decide(first, 60);
  EXPECT_FALSE(window.HasRoom());
  EXPECT_EQ(window.held_bytes(), 120);
  window.Write(first);
  EXPECT_TRUE(window.HasRoom());
}

TEST(StreamWindowDeathTest, RequestIsDecidedAndWrittenOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  StreamWindow window(1, kPlenty);
  const uint64_t place = window.Read(1);
  EXPECT_DEATH(window.Write(place), "What is written was decided");
  window.Decide(place, 1);
  EXPECT_DEATH(window.Decide(place, 1), "A request is decided once");
  EXPECT_DEATH(window.LetDrop(place), "can't be dropped any more");
  window.Write(place);
  EXPECT_DEATH(window.Write(place), "not answered");
}

// Random histories, against sums over all that was read.
TEST(StreamWindowProperty, HasRoomExactlyWhileEveryBoundHolds) {
  struct Request {
    size_t bytes = 0;
    bool droppable = false;
    bool decided = false;
    bool written = false;
  };
  const uint64_t seed = TestSeed();
  SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int history = 0; history < 50; ++history) {
    const int size = 1 + static_cast<int>(random() % 20);
    StreamWindow window(size, 1000);
    std::vector<Request> requests;
    int refused = 0;
    for (int step = 0; step < 2000; ++step) {
      const size_t chosen = requests.empty() ? 0 : random() % requests.size();
      if (random() % 3 == 0 && window.HasRoom()) {
        const Request request = {.bytes = random() % 100, .droppable = random() % 2 == 0};
        ASSERT_EQ(window.Read(request.bytes), requests.size());
        if (request.droppable) window.LetDrop(requests.size());
        requests.push_back(request);
      } else if (!requests.empty() && !requests[chosen].decided) {
        requests[chosen].decided = true;
        requests[chosen].bytes = random() % 100;
        window.Decide(chosen, requests[chosen].bytes);
      } else if (!requests.empty() && !requests[chosen].written) {
        requests[chosen].written = true;
        window.Write(chosen);
      }
      int standing = 0, droppable = 0;
      size_t undecided_bytes = 0, unwritten_bytes = 0;
      for (const Request& request : requests) {
        if (request.written) continue;
        standing += request.droppable ? 0 : 1;
        droppable += request.droppable && request.decided ? 1 : 0;
        (request.decided ? unwritten_bytes : undecided_bytes) += request.bytes;
      }
      const bool room = standing < size && droppable < std::max(64, 4 * size) &&
                        undecided_bytes < 1000 && unwritten_bytes < 1000;
      ASSERT_EQ(window.HasRoom(), room) << "history " << history << ", step " << step;
      ASSERT_EQ(window.held_bytes(), undecided_bytes + unwritten_bytes);
      refused += room ? 0 : 1;
    }
    EXPECT_GT(refused, 0);
  }
}

}  // namespace
}  // namespace millrace
