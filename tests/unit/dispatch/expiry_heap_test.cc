// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/expiry_heap.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>
#include <utility>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

struct Element {
  absl::Time expiry;
  size_t expiry_place = kNotInHeap;
};

TEST(ExpiryHeap, IsEmptyAndNeverExpiresAtFirst) {
  const ExpiryHeap<Element> heap;
  EXPECT_TRUE(heap.empty());
  EXPECT_EQ(heap.top(), nullptr);
  EXPECT_EQ(heap.next(), absl::InfiniteFuture());
}

TEST(ExpiryHeap, TopIsTheEarliestWhoeverComesAndGoes) {
  std::mt19937_64 random(TestSeed());
  std::deque<Element> elements(200);
  ExpiryHeap<Element> heap;
  std::multiset<absl::Time> expected;
  for (int step = 0; step < 20000; ++step) {
    Element& element = elements[random() % elements.size()];
    if (element.expiry_place == kNotInHeap) {
      element.expiry = absl::UnixEpoch() + absl::Seconds(random() % 50);
      heap.Push(element);
      expected.insert(element.expiry);
    } else {
      heap.Remove(element);
      expected.erase(expected.find(element.expiry));
    }
    ASSERT_EQ(heap.next(), expected.empty() ? absl::InfiniteFuture() : *expected.begin());
    ASSERT_EQ(heap.empty(), expected.empty());
  }
}

}  // namespace
}  // namespace millrace
