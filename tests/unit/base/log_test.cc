// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "absl/functional/function_ref.h"

namespace millrace {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::string StderrOf(absl::FunctionRef<void()> body) {
  testing::internal::CaptureStderr();
  body();
  return testing::internal::GetCapturedStderr();
}

TEST(Log, TextLineHasLevelProgramAndMessage) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kText, "tester");
  const std::string out = StderrOf([] { LogWarning("queue of ", 3, " rows"); });
  EXPECT_THAT(out, AllOf(HasSubstr(" W tester["), EndsWith("] queue of 3 rows\n")));
}

TEST(Log, LevelsBelowTheConfiguredOneAreLeftOut) {
  ConfigureLog(LogLevel::kWarning, LogFormat::kText, "tester");
  EXPECT_EQ(StderrOf([] { LogInfo("not this"); }), "");
  EXPECT_THAT(StderrOf([] { LogError("this"); }), HasSubstr("this"));
  ConfigureLog(LogLevel::kDebug, LogFormat::kText, "tester");
  EXPECT_THAT(StderrOf([] { Log(LogLevel::kDebug, "that"); }), HasSubstr("that"));
}

TEST(Log, LineBreaksCannotForgeALine) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kText, "tester");
  const std::string out = StderrOf([] { LogInfo("a\nb\rc\x1b[31m"); });
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1);
  EXPECT_THAT(out, EndsWith("a\\nb\\u000dc\\u001b[31m\n"));
}

TEST(Log, JsonLineIsOneObjectWithQuotesEscaped) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kJson, "tester");
  const std::string out = StderrOf([] { LogInfo("model \"a\\b\"\tfailed"); });
  EXPECT_THAT(out, StartsWith("{\"time\":\""));
  EXPECT_THAT(out, HasSubstr(R"("level":"info","program":"tester","pid":)"));
  EXPECT_THAT(out, EndsWith(R"("message":"model \"a\\b\"\u0009failed"})"
                            "\n"));
}

TEST(Log, BracesInAMessageAreNoFormat) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kText, "tester");
  EXPECT_THAT(StderrOf([] { LogInfo("{} {0} %s %v"); }), EndsWith("{} {0} %s %v\n"));
}

}  // namespace
}  // namespace millrace
