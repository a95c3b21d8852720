// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/triton_metrics.h"

#include <gtest/gtest.h>

#include <string>

#include "server/metrics/metrics_registry.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

double Value(const std::vector<Sample>& samples, const Metric& metric,
             const std::string& last_label) {
  for (const Sample& sample : samples) {
    if (sample.metric == &metric && sample.labels.back() == last_label) {
      return std::get<double>(sample.value);
    }
  }
  return -1;
}

RequestRecord Request(absl::StatusCode code) {
  RequestRecord record;
  record.code = static_cast<int>(code);
  record.rows = 2;
  record.total = absl::Microseconds(400);
  record.queue = absl::Microseconds(100);
  record.compute_input = absl::Microseconds(10);
  record.compute_infer = absl::Microseconds(200);
  record.compute_output = absl::Microseconds(20);
  return record;
}

class TritonMetricsTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  std::shared_ptr<ModelMetrics> model_ = std::make_shared<ModelMetrics>("m", "3", 4, clock_);
};

TEST_F(TritonMetricsTest, TimesAreMicrosecondsOfSuccessfulRequests) {
  model_->RecordRequest(Request(absl::StatusCode::kOk));
  model_->RecordRequest(Request(absl::StatusCode::kOk));
  model_->RecordRequest(Request(absl::StatusCode::kInternal));
  const std::vector<Sample> samples = CollectTritonModel(*model_);
  EXPECT_EQ(Value(samples, kTritonSuccess, "3"), 2);
  EXPECT_EQ(Value(samples, kTritonCount, "3"), 4);
  EXPECT_EQ(Value(samples, kTritonRequestUs, "3"), 800);
  EXPECT_EQ(Value(samples, kTritonQueueUs, "3"), 200);
  EXPECT_EQ(Value(samples, kTritonInputUs, "3"), 20);
  EXPECT_EQ(Value(samples, kTritonInferUs, "3"), 400);
  EXPECT_EQ(Value(samples, kTritonOutputUs, "3"), 40);
}

TEST_F(TritonMetricsTest, BatchesAreExecutions) {
  BatchRecord batch;
  batch.rows = 3;
  model_->RecordBatch(batch);
  EXPECT_EQ(Value(CollectTritonModel(*model_), kTritonExecCount, "3"), 1);
}

TEST_F(TritonMetricsTest, FailuresHaveTritonsReasons) {
  for (const auto code : {absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable,
                          absl::StatusCode::kCancelled, absl::StatusCode::kInternal,
                          absl::StatusCode::kInvalidArgument}) {
    model_->RecordRequest(Request(code));
  }
  const std::vector<Sample> samples = CollectTritonModel(*model_);
  EXPECT_EQ(Value(samples, kTritonFailure, "REJECTED"), 2);
  EXPECT_EQ(Value(samples, kTritonFailure, "CANCELED"), 1);
  EXPECT_EQ(Value(samples, kTritonFailure, "BACKEND"), 1);
  EXPECT_EQ(Value(samples, kTritonFailure, "OTHER"), 1);
}

TEST_F(TritonMetricsTest, WaitingRequestsArePending) {
  model_->SetGauges([] {
    ModelGauges gauges;
    gauges.waiting_requests = 5;
    return gauges;
  });
  EXPECT_EQ(Value(CollectTritonModel(*model_), kTritonPending, "3"), 5);
}

TEST_F(TritonMetricsTest, GpusAreNamedByTheirUuid) {
  const std::vector<Sample> samples =
      CollectTritonGpus({{&kGpuMemoryUsed, {"0", "GPU-1"}, 600.0}, {&kCpuBudget, {}, 2.0}});
  ASSERT_EQ(samples.size(), 1u);
  EXPECT_EQ(Value(samples, kTritonGpuMemoryUsed, "GPU-1"), 600);
}

TEST_F(TritonMetricsTest, AreShownOnlyWhereTheyAreAskedFor) {
  MetricsRegistry registry;
  registry.AddModel(model_);
  EXPECT_EQ(registry.Render().find("nv_inference"), std::string::npos);
  registry.ShowTritonNames();
  EXPECT_NE(registry.Render().find("nv_inference_request_success{model=\"m\",version=\"3\"} 0\n"),
            std::string::npos);
}

}  // namespace
}  // namespace millrace
