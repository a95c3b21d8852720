// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/caller_check.h"

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr char kInfer[] = "/inference.GRPCInferenceService/ModelInfer";
constexpr char kIndex[] = "/inference.GRPCInferenceService/RepositoryIndex";
constexpr char kLoad[] = "/inference.GRPCInferenceService/RepositoryModelLoad";
constexpr char kHealth[] = "/grpc.health.v1.Health/Check";

std::string Line(absl::string_view classes, absl::string_view token) {
  const TokenHash hash = HashOf(token);
  return absl::StrCat(classes, " ",
                      absl::BytesToHexString(absl::string_view(
                          reinterpret_cast<const char*>(hash.data()), hash.size())),
                      "\n");
}

const TokenTable& Tokens() {
  static const auto* const table = new TokenTable(
      *TokenTable::Parse(Line("infer", "camera") + Line("infer,read,admin", "root")));
  return *table;
}

absl::StatusCode CodeOf(const CallerCheck& check, absl::string_view path,
                        const std::vector<absl::string_view>& authorization = {},
                        const std::vector<absl::string_view>& names = {},
                        const TokenTable* tokens = &Tokens()) {
  return check.Check(path, {.names = names, .authorization = authorization}, tokens).code();
}

TEST(CallerCheck, TokenDecidesByTheClassOfTheMethod) {
  const CallerCheck check({});
  EXPECT_EQ(CodeOf(check, kInfer, {"Bearer camera"}), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(check, kInfer, {"bearer camera"}), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(check, kIndex, {"Bearer camera"}), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(check, kLoad, {"Bearer camera"}), absl::StatusCode::kPermissionDenied);
  for (const char* path : {kInfer, kIndex, kLoad}) {
    EXPECT_EQ(CodeOf(check, path, {"Bearer root"}), absl::StatusCode::kOk) << path;
  }
}

TEST(CallerCheck, WithoutAKnownTokenNobodyIsLetIn) {
  const CallerCheck check({});
  const std::vector<std::vector<absl::string_view>> bad = {{},
                                                           {"camera"},
                                                           {"Basic camera"},
                                                           {"Bearer "},
                                                           {"Bearer wrong"},
                                                           {"Bearer  camera"},
                                                           {"Bearer camera", "Bearer camera"}};
  for (const auto& authorization : bad) {
    EXPECT_EQ(CodeOf(check, kInfer, authorization), absl::StatusCode::kUnauthenticated)
        << (authorization.empty() ? "" : authorization[0]);
  }
}

TEST(CallerCheck, HealthNeedsNoToken) {
  EXPECT_EQ(CodeOf(CallerCheck({}), kHealth), absl::StatusCode::kOk);
}

TEST(CallerCheck, UnclassifiedMethodIsDeniedWhoeverCalls) {
  const CallerCheck check({});
  for (const char* path : {"", "/inference.GRPCInferenceService/New", "/a.B/C"}) {
    EXPECT_EQ(CodeOf(check, path, {"Bearer root"}), absl::StatusCode::kPermissionDenied) << path;
    EXPECT_EQ(CodeOf(check, path, {}, {}, nullptr), absl::StatusCode::kPermissionDenied) << path;
  }
}

TEST(CallerCheck, WhatIsNotOfferedIsDeniedAndSaysWhereItIs) {
  const CallerCheck data({.offered = BitOf(MethodClass::kInfer)});
  EXPECT_EQ(CodeOf(data, kInfer, {}, {}, nullptr), absl::StatusCode::kOk);
  const absl::Status status = data.Check(kLoad, {}, nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(status.message(), HasSubstr("--admin-listen"));
  const CallerCheck admin({.offered = BitOf(MethodClass::kAdmin)});
  EXPECT_THAT(admin.Check(kInfer, {}, nullptr).message(), HasSubstr("--grpc-listen"));
}

TEST(CallerCheck, CertificateMustStandForOneOfTheNames) {
  const CallerCheck check({.allowed_names = {"spiffe://site/camera", "ops.example"}});
  EXPECT_EQ(CodeOf(check, kInfer, {}, {"localhost", "spiffe://site/camera"}, nullptr),
            absl::StatusCode::kOk);
  for (const std::vector<absl::string_view>& names : std::vector<std::vector<absl::string_view>>{
           {}, {"spiffe://site/camera2"}, {"spiffe://site"}, {"OPS.example"}}) {
    EXPECT_EQ(CodeOf(check, kInfer, {}, names, nullptr), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(CodeOf(check, kHealth, {}, names, nullptr), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(CodeOf(check, kInfer, {"Bearer root"}, names), absl::StatusCode::kPermissionDenied);
  }
}

}  // namespace
}  // namespace millrace
