// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/connection_limits.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "gtest/gtest.h"

namespace millrace {
namespace {

sockaddr_storage Address(const char* text) {
  sockaddr_storage address = {};
  auto* const four = reinterpret_cast<sockaddr_in*>(&address);
  auto* const six = reinterpret_cast<sockaddr_in6*>(&address);
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    address.ss_family = AF_INET;
    four->sin_port = htons(1234);
  } else {
    inet_pton(AF_INET6, text, &six->sin6_addr);
    address.ss_family = AF_INET6;
  }
  return address;
}

TEST(ConnectionLimits, HoldInAllAndPerPeer) {
  ConnectionLimits limits({.most = 3, .most_per_peer = 2});
  EXPECT_TRUE(limits.Enter("a").ok());
  EXPECT_TRUE(limits.Enter("a").ok());
  EXPECT_EQ(limits.Enter("a").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(limits.Enter("b").ok());
  EXPECT_EQ(limits.Enter("c").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(limits.open(), 3u);
  limits.Leave("a");
  EXPECT_TRUE(limits.Enter("c").ok());
  EXPECT_EQ(limits.open(), 3u);
}

TEST(ConnectionLimits, RefusedAndUnknownPeersLeaveNothingBehind) {
  ConnectionLimits limits({.most = 10, .most_per_peer = 1});
  EXPECT_TRUE(limits.Enter("a").ok());
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(limits.Enter("a").ok());
  limits.Leave("never came");
  EXPECT_EQ(limits.open(), 1u);
  limits.Leave("a");
  EXPECT_EQ(limits.open(), 0u);
  EXPECT_TRUE(limits.Enter("a").ok());
}

TEST(PeerOf, IsAHostWhateverItsPort) {
  EXPECT_EQ(PeerOf(Address("10.1.2.3")), "10.1.2.3");
  EXPECT_EQ(PeerOf(Address("::ffff:10.1.2.3")), "10.1.2.3");
}

TEST(PeerOf, IsANetworkOfIpv6) {
  EXPECT_EQ(PeerOf(Address("2001:db8:1:2:3:4:5:6")), "2001:db8:1:2::/64");
  EXPECT_EQ(PeerOf(Address("2001:db8:1:2:ffff::9")), PeerOf(Address("2001:db8:1:2::1")));
  EXPECT_NE(PeerOf(Address("2001:db8:1:3::1")), PeerOf(Address("2001:db8:1:2::1")));
}

}  // namespace
}  // namespace millrace
