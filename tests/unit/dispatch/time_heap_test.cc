// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/time_heap.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>
#include <utility>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

struct Element {
  absl::Time time;
  size_t place = kNotInHeap;
};
using Heap = TimeHeap<Element, &Element::time, &Element::place>;

TEST(TimeHeap, IsEmptyAtFirst) {
  const Heap heap;
  EXPECT_TRUE(heap.empty());
  EXPECT_EQ(heap.top(), nullptr);
  EXPECT_EQ(heap.next(), absl::InfiniteFuture());
}

TEST(TimeHeap, TopIsTheEarliestWhoeverComesAndGoes) {
  std::mt19937_64 random(TestSeed());
  std::deque<Element> elements(200);
  Heap heap;
  std::multiset<absl::Time> expected;
  for (int step = 0; step < 20000; ++step) {
    Element& element = elements[random() % elements.size()];
    if (element.place == kNotInHeap) {
      element.time = absl::UnixEpoch() + absl::Seconds(random() % 50);
      heap.Push(element);
      expected.insert(element.time);
    } else {
      heap.Remove(element);
      expected.erase(expected.find(element.time));
    }
    ASSERT_EQ(heap.next(), expected.empty() ? absl::InfiniteFuture() : *expected.begin());
    ASSERT_EQ(heap.empty(), expected.empty());
  }
}

TEST(TimeHeap, NeverHoldsWhatNeverHappens) {
  Heap heap;
  Element element = {.time = absl::InfiniteFuture()};
  heap.Push(element);
  EXPECT_TRUE(heap.empty());
  heap.Remove(element);
}

TEST(TimeHeap, FindsTheEarliestThatIsWanted) {
  std::mt19937_64 random(TestSeed());
  std::deque<Element> elements(100);
  Heap heap;
  for (Element& element : elements) {
    element.time = absl::UnixEpoch() + absl::Seconds(random() % 1000);
    heap.Push(element);
  }
  for (int64_t odd : {2, 3, 7, 50}) {
    const auto wanted = [&](const Element& element) {
      return absl::ToUnixSeconds(element.time) % odd == 0;
    };
    for (const absl::Time end : {absl::FromUnixSeconds(500), absl::InfiniteFuture()}) {
      const Element* expected = nullptr;
      for (const Element& element : elements) {
        if (!wanted(element) || element.time >= end) continue;
        if (expected == nullptr || element.time < expected->time) expected = &element;
      }
      const Element* const found = heap.FirstBefore(end, 100, wanted);
      ASSERT_EQ(found == nullptr, expected == nullptr);
      if (found != nullptr) {
        EXPECT_EQ(found->time, expected->time);
      }
    }
  }
  int looked_at = 0;
  const auto nobody = [&](const Element&) { return ++looked_at < 0; };
  EXPECT_EQ(heap.FirstBefore(absl::InfiniteFuture(), 10, nobody), nullptr);
  EXPECT_LE(looked_at, 21);
}

}  // namespace
}  // namespace millrace
