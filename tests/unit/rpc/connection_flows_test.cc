// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/connection_flows.h"

#include <deque>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/base/thread.h"

namespace millrace {
namespace {

std::string Peer(int number) { return absl::StrCat("ipv4:127.0.0.1:", number); }

TEST(ConnectionFlows, CallsOfAConnectionShareAFlowThatRejects) {  // Invariant 1
  ConnectionFlows flows;
  const auto first = flows.Of(Peer(1));
  EXPECT_EQ(first->overflow(), Overflow::kReject);
  EXPECT_EQ(flows.Of(Peer(1)), first);
  EXPECT_NE(flows.Of(Peer(2)), first);
  EXPECT_EQ(flows.Of(Peer(1)), first);
  EXPECT_EQ(flows.size(), 2);
}

TEST(ConnectionFlows, ThoseThatNobodyUsesAreForgotten) {  // Invariant 2
  ConnectionFlows flows;
  const auto used = flows.Of("unix:");
  for (int i = 0; i < 10'000; ++i) {
    flows.Of(Peer(i));
    ASSERT_LE(flows.size(), ConnectionFlows::kFewestKept);
  }
  EXPECT_EQ(flows.Of("unix:"), used);
}

TEST(ConnectionFlows, ThoseInUseAreKeptHoweverManyTheyAre) {
  ConnectionFlows flows;
  std::vector<std::shared_ptr<const Flow>> used;
  for (int i = 0; i < 1000; ++i) used.push_back(flows.Of(Peer(i)));
  EXPECT_EQ(flows.size(), 1000);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(flows.Of(Peer(i)), used[static_cast<size_t>(i)]);
  used.clear();
  for (int i = 1000; i < 5000; ++i) flows.Of(Peer(i));
  EXPECT_LE(flows.size(), 2000);
}

TEST(ConnectionFlows, ThreadsThatComeForTheSameConnectionGetTheSameFlow) {
  ConnectionFlows flows;
  const auto shared = flows.Of("shared");
  std::deque<Thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back("calls", [&flows, &shared, t] {
      for (int i = 0; i < 2000; ++i) {
        EXPECT_EQ(flows.Of("shared"), shared);
        const auto own = flows.Of(Peer(t * 10'000 + i));
        EXPECT_EQ(flows.Of(Peer(t * 10'000 + i)), own);
      }
    });
  }
  threads.clear();
  EXPECT_LE(flows.size(), ConnectionFlows::kFewestKept);
}

}  // namespace
}  // namespace millrace
