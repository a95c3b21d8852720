// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/own_host.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(OwnHost, AddressesAndNamesThatNobodyCanRegisterAreOurs) {
  for (const char* host : {"127.0.0.1", "10.0.0.7:8002", "[::1]", "[fe80::1]:8002",
                           "localhost:8002", "LocalHost.", "millrace", "millrace.default.svc",
                           "millrace.default.svc.cluster.local:8002", "a.internal"}) {
    EXPECT_TRUE(IsOwnHost(host)) << host;
  }
}

TEST(OwnHost, NamesThatAnybodyCanRegisterAreNot) {
  for (const char* host : {"", ":8002", "evil.example", "evil.example:8002",
                           "127.0.0.1.evil.example", "localhost.evil.example", "notlocal.example",
                           "[evil.example]", "[", "a/b", "evil.example.", "xn--a.com"}) {
    EXPECT_FALSE(IsOwnHost(host)) << host;
  }
}

}  // namespace
}  // namespace millrace
