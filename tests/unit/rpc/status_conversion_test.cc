// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_conversion.h"

#include <string>

#include "gtest/gtest.h"
#include "server/rpc/utf8.h"

namespace millrace {
namespace {

TEST(StatusConversion, KeepsEveryCanonicalCodeBothWays) {
  for (int code = 0; code <= 16; ++code) {
    EXPECT_EQ(static_cast<int>(ToGrpc(static_cast<absl::StatusCode>(code))), code);
    EXPECT_EQ(static_cast<int>(FromGrpc(static_cast<grpc::StatusCode>(code))), code);
  }
}

TEST(StatusConversion, MakesStrangeCodesUnknown) {
  EXPECT_EQ(ToGrpc(static_cast<absl::StatusCode>(99)), grpc::StatusCode::UNKNOWN);
  EXPECT_EQ(FromGrpc(grpc::StatusCode::DO_NOT_USE), absl::StatusCode::kUnknown);
}

TEST(StatusConversion, KeepsAShortMessage) {
  const grpc::Status status = ToGrpc(absl::NotFoundError("no model 'größe'"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no model 'größe'");
}

TEST(StatusConversion, AnErrorNeverHasAnEmptyMessage) {
  EXPECT_EQ(WireMessage(absl::InternalError("")), "INTERNAL");
  EXPECT_EQ(WireMessage(absl::OkStatus()), "");
}

TEST(StatusConversion, CutsALongMessageToTheTrailersBound) {
  EXPECT_EQ(WireMessage(absl::InternalError(std::string(3072, 'a'))), std::string(3072, 'a'));
  EXPECT_EQ(WireMessage(absl::InternalError(std::string(3073, 'a'))),
            std::string(3072 - 9, 'a') + "…");
}

TEST(StatusConversion, CutsBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "€";  // Nine bytes of a trailer each.
  const std::string cut = WireMessage(absl::InternalError(text));
  EXPECT_TRUE(IsValidUtf8(cut));
  EXPECT_EQ(cut.size() / 3, 3072 / 9);
  EXPECT_EQ(cut.substr(cut.size() - 3), "…");
}

TEST(StatusConversion, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(ToGrpc(absl::InternalError("bad \xFF byte")).error_message(), "bad ? byte");
}

}  // namespace
}  // namespace millrace
