// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/load_reports.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/unknown_field_set.h"
#include "gtest/gtest.h"
#include "proto/load_report.pb.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

class LoadReportsTest : public testing::Test {
 protected:
  std::shared_ptr<ModelMetrics> NewModel(const std::string& name = "model") {
    return std::make_shared<ModelMetrics>(name, "1", 8, clock_);
  }

  static void Answer(ModelMetrics& model, int times,
                     absl::StatusCode code = absl::StatusCode::kOk) {
    RequestRecord record;
    record.code = static_cast<int>(code);
    for (int i = 0; i < times; ++i) model.RecordRequest(record);
  }

  v1::LoadReport Get(const std::shared_ptr<ModelMetrics>& model) {
    v1::LoadReport report;
    EXPECT_TRUE(report.ParseFromString(*reports_.Of(model)));
    return report;
  }

  FakeClock clock_;
  LoadReports reports_{clock_};
};

TEST_F(LoadReportsTest, RatesAreOfAllAnswersAndOfFailures) {
  const auto model = NewModel();
  Get(model);
  Answer(*model, 30);
  Answer(*model, 10, absl::StatusCode::kResourceExhausted);
  clock_.Advance(absl::Seconds(2));
  const v1::LoadReport report = Get(model);
  EXPECT_DOUBLE_EQ(report.rps_fractional(), 20);
  EXPECT_DOUBLE_EQ(report.eps(), 5);
}

TEST_F(LoadReportsTest, FirstReportKnowsNoRates) {
  const auto model = NewModel();
  Answer(*model, 1000);
  EXPECT_EQ(Get(model).rps_fractional(), 0);
}

TEST_F(LoadReportsTest, RatesForgetWhatWasLongAgo) {
  const auto model = NewModel();
  Get(model);
  Answer(*model, 10'000);
  for (int second = 0; second < 40; ++second) {
    clock_.Advance(absl::Seconds(1));
    Answer(*model, 5);
    Get(model);
  }
  EXPECT_DOUBLE_EQ(Get(model).rps_fractional(), 5);
}

TEST_F(LoadReportsTest, UtilisationIsThePartOfTheReplicasTimeThatWasBusy) {
  const auto model = NewModel();
  model->SetGauges([] {
    ModelGauges gauges;
    gauges.in_flight = 7;
    gauges.ready_replicas = 2;
    gauges.predicted_wait = absl::Seconds(3);
    return gauges;
  });
  clock_.Advance(absl::Seconds(10));
  BatchRecord batch;
  batch.execute = absl::Seconds(5);
  model->RecordBatch(batch);
  const v1::LoadReport report = Get(model);
  EXPECT_NEAR(report.application_utilization(), 5.0 / 20.0, 1e-9);
  EXPECT_EQ(report.named_metrics().at("in_flight_requests"), 7);
  EXPECT_EQ(report.named_metrics().at("predicted_wait_seconds"), 3);
  EXPECT_EQ(report.named_metrics().count("desired_replicas_ratio"), 1u);
}

TEST_F(LoadReportsTest, ModelThatHasEndedHasRatesOnly) {
  const auto model = NewModel();
  Get(model);
  Answer(*model, 4);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Get(model).rps_fractional(), 4);
  EXPECT_EQ(Get(model).named_metrics_size(), 0);
}

TEST_F(LoadReportsTest, IsMadeNoMoreOftenThanItGetsOld) {  // Invariant 1
  const auto model = NewModel();
  int asked = 0;
  model->SetGauges([&] {
    ++asked;
    return ModelGauges{};
  });
  for (int i = 0; i < 1000; ++i) {
    reports_.Of(model);
    clock_.Advance(absl::Milliseconds(1));
  }
  EXPECT_EQ(asked, 10);
}

TEST_F(LoadReportsTest, ModelsThatHaveGoneAreForgotten) {  // Invariant 2
  const auto lives = NewModel("lives");
  Get(lives);
  for (int i = 0; i < 1000; ++i) {
    Get(NewModel());
    ASSERT_LE(reports_.size(), LoadReports::kFewestKept);
  }
  std::vector<std::shared_ptr<ModelMetrics>> many;
  for (int i = 0; i < 100; ++i) Get(many.emplace_back(NewModel()));
  EXPECT_GE(reports_.size(), 101u);
}

// As xds/data/orca/v3/orca_load_report.proto numbers them, and as doubles.
TEST_F(LoadReportsTest, FieldsHaveTheNumbersThatBalancersRead) {
  const auto model = NewModel();
  model->SetGauges([] {
    ModelGauges gauges;
    gauges.queue_depth = 1;
    return gauges;
  });
  Get(model);
  Answer(*model, 2, absl::StatusCode::kInternal);
  clock_.Advance(absl::Seconds(1));
  google::protobuf::UnknownFieldSet fields;
  ASSERT_TRUE(fields.ParseFromString(*reports_.Of(model)));
  std::vector<int> doubles;
  int named = 0;
  for (int i = 0; i < fields.field_count(); ++i) {
    const auto& field = fields.field(i);
    if (field.type() == google::protobuf::UnknownField::TYPE_FIXED64) {
      doubles.push_back(field.number());
    } else {
      EXPECT_EQ(field.number(), 8);  // named_metrics
      ++named;
    }
  }
  EXPECT_EQ(doubles, std::vector<int>({6, 7, 9}));  // Requests, errors, utilisation.
  EXPECT_EQ(named, 3);
}

}  // namespace
}  // namespace millrace
