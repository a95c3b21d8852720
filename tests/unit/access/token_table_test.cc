// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/token_table.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Hex(absl::string_view token) {
  const TokenHash hash = HashOf(token);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(hash.data()), hash.size()));
}

TEST(TokenTable, HashIsSha256) {
  EXPECT_EQ(Hex("test"), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
}

TEST(TokenTable, TokenIsGoodForTheClassesOfItsLine) {
  const auto table =
      TokenTable::Parse(absl::StrCat("# who may what\n\n", "infer,read ", Hex("camera"),
                                     "  the cameras\r\n\tadmin\t", Hex("operator")));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->size(), 2u);
  EXPECT_EQ(table->ClassesOf("camera"), BitOf(MethodClass::kInfer) | BitOf(MethodClass::kRead));
  EXPECT_EQ(table->ClassesOf("operator"), BitOf(MethodClass::kAdmin));
}

TEST(TokenTable, UnknownTokensAreGoodForNothing) {
  const auto table = TokenTable::Parse(absl::StrCat("infer ", Hex("camera")));
  ASSERT_TRUE(table.ok());
  for (const std::string& token :
       {std::string(), std::string("camer"), std::string("camera "), std::string("CAMERA"),
        Hex("camera"), std::string(TokenTable::kMostTokenBytes + 1, 'a')}) {
    EXPECT_EQ(table->ClassesOf(token), 0u) << token.substr(0, 70);
  }
  EXPECT_EQ(TokenTable::Parse("")->ClassesOf("camera"), 0u);
}

TEST(TokenTable, BadLinesAreNamedAndNothingOfThemIsShown) {
  for (const std::string& line :
       {std::string("hunter2"), std::string("infer"), std::string("infer hunter2"),
        absl::StrCat("infer,hunter2 ", Hex("a")), absl::StrCat("infer, ", Hex("a")),
        absl::StrCat("infer ", Hex("a").substr(1)), absl::StrCat("infer ", Hex("a"), "0"),
        absl::StrCat("infer hunter2", Hex("a").substr(7)), absl::StrCat("Infer ", Hex("a")),
        absl::StrCat("open ", Hex("a"))}) {
    const absl::Status status = TokenTable::Parse(absl::StrCat("# first\n", line)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_THAT(status.message(), HasSubstr("line 2")) << line;
    EXPECT_THAT(status.message(), Not(HasSubstr("hunter2"))) << line;
  }
}

TEST(TokenTable, SameTokenTwiceIsAnError) {
  const std::string line = absl::StrCat("infer ", Hex("a"), "\n");
  EXPECT_THAT(TokenTable::Parse(line + line).status().message(), HasSubstr("line 2"));
}

}  // namespace
}  // namespace millrace
