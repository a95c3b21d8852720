// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tracing/request_tracer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "server/base/log.h"
#include "tests/fakes/fake_clock.h"
#include "tests/unit/tracing/traced_requests.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
constexpr char kRecorded[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

class RequestTracerTest : public ::testing::Test {
 protected:
  RequestTracerTest() {
    std::string path = (std::filesystem::temp_directory_path() / "millrace-XXXXXX").string();
    folder_ = mkdtemp(path.data());
    file_ = (folder_ / "trace.json").string();
  }
  ~RequestTracerTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<RequestTracer> Make(const RequestTracer::Options& options) {
    auto tracer = RequestTracer::Create(options, clock_);
    EXPECT_TRUE(tracer.ok()) << tracer.status();
    return tracer.ok() ? *std::move(tracer) : nullptr;
  }
  static std::shared_ptr<RequestTrace> Begin(RequestTracer& tracer, const char* parent = "") {
    return tracer.Begin(parent, "cam-1", [] { return std::string("ipv4:1.2.3.4:5"); });
  }
  std::string FileText() const {
    std::ifstream file(file_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t RequestsInFile() const {
    size_t count = 0;
    for (const auto& event : nlohmann::json::parse(FileText())) {
      if (event.value("name", "") == "rpc" && event["ph"] == "b") ++count;
    }
    return count;
  }

  FakeClock clock_;
  std::filesystem::path folder_;
  std::string file_;
};

TEST(Sampler, TakesItsPartEvenly) {
  Sampler none(0);
  Sampler all(1);
  Sampler quarter(0.25);
  int taken = 0;
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(none.Take());
    EXPECT_TRUE(all.Take());
    taken += quarter.Take() ? 1 : 0;
    EXPECT_LE(std::abs(taken - (i + 1) / 4), 1);
  }
  EXPECT_EQ(taken, 25);
}

TEST_F(RequestTracerTest, NobodyIsTracedWhereItIsOff) {
  const auto tracer = Make({});
  EXPECT_FALSE(tracer->on());
  EXPECT_EQ(Begin(*tracer), nullptr);
}

TEST_F(RequestTracerTest, ClientsTraceGoesOnWithASpanOfOurOwn) {
  const auto tracer = Make({});
  const auto trace = Begin(*tracer, kParent);
  ASSERT_NE(trace, nullptr);
  EXPECT_TRUE(trace->to_client);
  EXPECT_FALSE(trace->to_file);
  EXPECT_FALSE(trace->to_log);
  EXPECT_EQ(FormatTraceId(trace->context), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(trace->parent_span, 0x00f067aa0ba902b7u);
  EXPECT_NE(trace->context.span, trace->parent_span);
  EXPECT_FALSE(trace->context.sampled);
}

TEST_F(RequestTracerTest, ContextThatIsNoneIsIgnored) {
  EXPECT_EQ(Begin(*Make({}), "00-nonsense"), nullptr);
}

TEST_F(RequestTracerTest, FileHasASampleAndWhatItsClientRecords) {
  auto tracer = Make({.trace_file = file_, .trace_sample = 0.5, .trace_file_bytes = 1 << 20});
  int sampled = 0;
  for (int i = 0; i < 10; ++i) {
    if (const auto trace = Begin(*tracer)) {
      EXPECT_TRUE(trace->to_file);
      EXPECT_FALSE(trace->to_client);
      EXPECT_EQ(trace->parent_span, 0u);
      ++sampled;
    }
    EXPECT_TRUE(Begin(*tracer, kRecorded)->to_file);
  }
  EXPECT_EQ(sampled, 5);
}

TEST_F(RequestTracerTest, FileIsWholeWhenTheTracerEnds) {
  auto tracer = Make({.trace_file = file_, .trace_sample = 1, .trace_file_bytes = 1 << 20});
  for (uint64_t i = 1; i <= 20; ++i) tracer->End(ServedRequest(clock_.Now(), "r", i));
  tracer.reset();
  EXPECT_EQ(RequestsInFile(), 20u);
}

TEST_F(RequestTracerTest, FileEndsAtItsLimitAndTheRestIsCounted) {
  auto tracer = Make({.trace_file = file_, .trace_sample = 1, .trace_file_bytes = 5000});
  for (uint64_t i = 1; i <= 100; ++i) tracer->End(ServedRequest(clock_.Now(), "r", i));
  while (tracer->dropped() == 0) {  // Until the thread has come so far.
    tracer->End(ServedRequest(clock_.Now(), "r", 1));
  }
  tracer.reset();
  EXPECT_GT(RequestsInFile(), 0u);
  EXPECT_LT(FileText().size(), 5000u + 3000u);
}

TEST_F(RequestTracerTest, FileThatCanNotBeWrittenIsAnErrorThatNamesIt) {
  const std::string path = (folder_ / "no" / "such").string();
  const auto tracer = RequestTracer::Create({.trace_file = path}, clock_);
  EXPECT_EQ(tracer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(tracer.status().message()), HasSubstr(path));
}

TEST_F(RequestTracerTest, LogSaysHowARequestFared) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kJson, "tester");
  auto tracer = Make({.trace_file = "", .access_log_sample = 1});
  TracedRequest request = ServedRequest(clock_.Now(), "frame 7", 9);
  const auto trace = Begin(*tracer);
  ASSERT_TRUE(trace != nullptr && trace->to_log);
  request.trace = trace;
  testing::internal::CaptureStderr();
  tracer->End(request);
  const auto line = nlohmann::json::parse(testing::internal::GetCapturedStderr());
  EXPECT_EQ(line["message"], "request");
  EXPECT_EQ(line["request_id"], "frame 7");
  EXPECT_EQ(line["trace_id"], FormatTraceId(trace->context));
  EXPECT_EQ(line["peer"], "ipv4:1.2.3.4:5");
  EXPECT_EQ(line["stream"], "cam-1");
  EXPECT_EQ(line["model"], "net");
  EXPECT_EQ(line["code"], "OK");
  EXPECT_EQ(line["execute_us"], 5000);
  EXPECT_EQ(line["total_us"], 9000);
  EXPECT_EQ(line["replica"], 1);
}

}  // namespace
}  // namespace millrace
