// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/server_certificate.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/access/test_certificate.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kEnd = absl::FromUnixSeconds(2'000'000'000);

absl::Status Checked(const std::string& chain, const std::string& key,
                     const std::optional<std::string>& authorities = std::nullopt) {
  return CheckCertificate(chain, key, authorities).status();
}

TEST(ServerCertificate, TellsSerialAndEndOfTheFirst) {
  const TestCertificate own = MakeTestCertificate(0xabc, kEnd);
  const TestCertificate other = MakeTestCertificate(2, absl::UnixEpoch());
  const auto checked =
      CheckCertificate(own.certificate + other.certificate, own.key, other.certificate);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->serial, "0abc");
  EXPECT_EQ(checked->not_after, kEnd);
  EXPECT_EQ(checked->chain, own.certificate + other.certificate);
  EXPECT_EQ(checked->client_authorities, other.certificate);
}

TEST(ServerCertificate, KeyOfAnotherIsRefused) {
  const TestCertificate one = MakeTestCertificate(1, kEnd);
  const TestCertificate other = MakeTestCertificate(2, kEnd);
  EXPECT_THAT(Checked(one.certificate, other.key).message(), HasSubstr("not that of"));
  EXPECT_THAT(Checked(one.certificate + other.certificate, other.key).message(),
              HasSubstr("first in its file"));
}

TEST(ServerCertificate, WhatIsCutOffOrNoPemIsRefused) {
  const TestCertificate own = MakeTestCertificate(1, kEnd);
  const std::string half = own.certificate.substr(0, own.certificate.size() / 2);
  EXPECT_FALSE(Checked("", own.key).ok());
  EXPECT_FALSE(Checked(half, own.key).ok());
  EXPECT_FALSE(Checked(own.certificate + half, own.key).ok());
  EXPECT_FALSE(Checked(own.key, own.key).ok());
  EXPECT_FALSE(Checked(own.certificate, "").ok());
  const absl::Status status = Checked(own.certificate, own.key.substr(0, own.key.size() / 2));
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), Not(HasSubstr(own.key.substr(40, 20))));
}

// Else a file that was emptied would let everybody in.
TEST(ServerCertificate, NoAuthorityIsNotAnEmptyOne) {
  const TestCertificate own = MakeTestCertificate(1, kEnd);
  EXPECT_TRUE(Checked(own.certificate, own.key).ok());
  EXPECT_FALSE(Checked(own.certificate, own.key, "").ok());
  EXPECT_FALSE(Checked(own.certificate, own.key, "not PEM").ok());
}

}  // namespace
}  // namespace millrace
