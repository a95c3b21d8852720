// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

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

TEST(Log, LevelCanBeChangedLater) {
  ConfigureLog(LogLevel::kWarning, LogFormat::kText, "tester");
  SetLogLevel(LogLevel::kInfo);
  EXPECT_THAT(StderrOf([] { LogInfo("now"); }), HasSubstr("now"));
  SetLogLevel(LogLevel::kError);
  EXPECT_EQ(StderrOf([] { LogWarning("not now"); }), "");
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

TEST(Log, FieldsFollowTheMessage) {
  const std::vector<LogField> fields = {{"id", std::string("a b")},
                                        {"model", std::string("net")},
                                        {"us", int64_t{12}},
                                        {"peer", std::string("x\ny")},
                                        {"none", std::string()}};
  ConfigureLog(LogLevel::kInfo, LogFormat::kText, "tester");
  EXPECT_THAT(StderrOf([&] { Log(LogLevel::kInfo, "request", fields); }),
              EndsWith(R"(] request id="a b" model=net us=12 peer=x\ny none="")"
                       "\n"));
  ConfigureLog(LogLevel::kInfo, LogFormat::kJson, "tester");
  EXPECT_THAT(
      StderrOf([&] { Log(LogLevel::kInfo, "request", fields); }),
      EndsWith(R"("message":"request","id":"a b","model":"net","us":12,"peer":"x\ny","none":""})"
               "\n"));
}

TEST(Log, BracesInAMessageAreNoFormat) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kText, "tester");
  EXPECT_THAT(StderrOf([] { LogInfo("{} {0} %s %v"); }), EndsWith("{} {0} %s %v\n"));
}

// The last: those after it would be cut, too.
TEST(Log, FloodIsCutAndTheNextLineSaysSo) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kText, "tester");
  const uint64_t before = DroppedLogLines();
  const std::string out = StderrOf([] {
    for (int i = 0; i < 20'000; ++i) LogInfo("flood");
    LogError("errors are always written");
  });
  const auto lines = static_cast<uint64_t>(std::count(out.begin(), out.end(), '\n'));
  EXPECT_GE(lines, 1'000u);
  EXPECT_LT(lines, 10'000u);
  EXPECT_GT(DroppedLogLines() - before, 10'000u);
  EXPECT_THAT(out, HasSubstr("errors are always written"));
  const std::string later = StderrOf([] {
    while (DroppedLogLines() > 0) {  // Until one may be written again.
      const uint64_t dropped = DroppedLogLines();
      LogInfo("calm");
      if (DroppedLogLines() == dropped) break;
    }
  });
  EXPECT_THAT(later,
              AllOf(HasSubstr(" lines were left out: there were too many\n"), EndsWith("calm\n")));
}

}  // namespace
}  // namespace millrace
