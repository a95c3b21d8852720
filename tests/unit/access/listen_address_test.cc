// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/listen_address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

TEST(ListenAddress, HasNoGuardUnlessAskedFor) {
  for (const char* const text :
       {"127.0.0.1:8001", "[::]:0", "unix:/run/a?b", "127.0.0.1:8001?guard=off"}) {
    const auto listen = ParseListenAddress(text);
    ASSERT_TRUE(listen.ok()) << listen.status();
    EXPECT_FALSE(listen->guard) << text;
  }
  EXPECT_EQ(ParseListenAddress("unix:/run/a?b")->address, "unix:/run/a?b");
}

TEST(ListenAddress, TakesItsGuardFromBehindTheAddress) {
  for (const std::string address : {"127.0.0.1:8001", "[::1]:0", "unix:/run/a?b"}) {
    const auto listen = ParseListenAddress(address + "?guard=on");
    ASSERT_TRUE(listen.ok()) << listen.status();
    EXPECT_TRUE(listen->guard);
    EXPECT_EQ(listen->address, address);
  }
}

TEST(ListenAddress, SaysWhatItDoesntKnow) {
  for (const char* const option : {"guard=yes", "guards=on", "guard="}) {
    const auto listen = ParseListenAddress(std::string("a:1?") + option);
    EXPECT_THAT(listen.status().message(), HasSubstr(option));
    EXPECT_THAT(listen.status().message(), HasSubstr("guard=on"));
  }
}

}  // namespace
}  // namespace millrace
