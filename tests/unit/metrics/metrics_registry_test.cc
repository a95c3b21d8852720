// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metrics_registry.h"

#include <gmock/gmock.h>

#include "server/metrics/server_metrics.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class MetricsRegistryTest : public ::testing::Test {
 protected:
  std::shared_ptr<ModelMetrics> MakeModel(const std::string& name) {
    return std::make_shared<ModelMetrics>(name, "1", 4, clock_);
  }

  FakeClock clock_;
  MetricsRegistry registry_;
};

TEST_F(MetricsRegistryTest, RendersNothingForNothing) {
  EXPECT_THAT(registry_.Render(), IsEmpty());
}

TEST_F(MetricsRegistryTest, RendersFamiliesWithHelpAndType) {
  const auto model = MakeModel("resnet");
  registry_.AddModel(model);
  model->RecordRequest({});
  const std::string text = registry_.Render();
  EXPECT_THAT(text, HasSubstr("# TYPE millrace_requests_total counter\n"));
  EXPECT_THAT(
      text, HasSubstr(std::string("# HELP millrace_requests_total ") + kRequestsTotal.help + "\n"));
  EXPECT_THAT(text, HasSubstr("millrace_requests_total{model=\"resnet\",version=\"1\",code=\"OK\"}"
                              " 1\n"));
}

TEST_F(MetricsRegistryTest, BucketsAreCumulativeAndEndWithInfinity) {
  const auto model = MakeModel("m");
  registry_.AddModel(model);
  for (const int rows : {1, 1, 3, 4}) {
    BatchRecord batch;
    batch.rows = rows;
    model->RecordBatch(batch);
  }
  const std::string text = registry_.Render();
  const std::string series = "millrace_batch_rows_bucket{model=\"m\",version=\"1\",le=";
  EXPECT_THAT(text, HasSubstr(series + "\"1\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(series + "\"2\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(series + "\"4\"} 4\n"));
  EXPECT_THAT(text, HasSubstr(series + "\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("millrace_batch_rows_count{model=\"m\",version=\"1\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("millrace_batch_rows_sum{model=\"m\",version=\"1\"} 9\n"));
}

TEST_F(MetricsRegistryTest, BoundsAreWrittenAsPeopleWriteThem) {
  const auto model = MakeModel("m");
  registry_.AddModel(model);
  const std::string text = registry_.Render();
  for (const char* bound : {"0.0005", "0.0025", "0.25", "30"}) {
    EXPECT_THAT(text, HasSubstr(std::string("version=\"1\",le=\"") + bound + "\"} 0\n"));
  }
}

TEST_F(MetricsRegistryTest, LabelValuesAreEscaped) {
  const auto model = MakeModel("a\"b\\c\nd");
  registry_.AddModel(model);
  EXPECT_THAT(registry_.Render(), HasSubstr("{model=\"a\\\"b\\\\c\\nd\",version=\"1\""));
}

TEST_F(MetricsRegistryTest, ModelLeavesWithItsLastOwner) {
  auto model = MakeModel("resnet");
  registry_.AddModel(model);
  EXPECT_THAT(registry_.Render(), HasSubstr("resnet"));
  model.reset();
  EXPECT_THAT(registry_.Render(), Not(HasSubstr("resnet")));
}

TEST_F(MetricsRegistryTest, ReloadedModelTakesThePlaceOfTheDrainingOne) {
  const auto old_model = MakeModel("resnet");
  const auto new_model = MakeModel("resnet");
  registry_.AddModel(old_model);
  registry_.AddModel(new_model);
  old_model->RecordReplicaRestart();
  const std::string series = "millrace_replica_restarts_total{model=\"resnet\",version=\"1\"}";
  EXPECT_THAT(registry_.Render(), HasSubstr(series + " 0\n"));
  EXPECT_THAT(registry_.Render(), Not(HasSubstr(series + " 1\n")));
}

TEST_F(MetricsRegistryTest, FamilyOfTwoModelsHasOneHeading) {
  const auto one = MakeModel("one");
  const auto two = MakeModel("two");
  registry_.AddModel(one);
  registry_.AddModel(two);
  const std::string text = registry_.Render();
  const std::string heading = "# TYPE millrace_execute_seconds histogram\n";
  EXPECT_THAT(text, HasSubstr(heading));
  EXPECT_EQ(text.find(heading), text.rfind(heading));
}

TEST_F(MetricsRegistryTest, ShowsWhatSourcesGive) {
  const ServerMetrics server({"1.2.3", "1.51.1", "2.13.0", "0123abc"});
  registry_.AddSource([&server] { return server.Collect(); });
  registry_.AddSource([] { return std::vector<Sample>{{&kCpuBudget, {}, 1.5}}; });
  const std::string text = registry_.Render();
  EXPECT_THAT(text, HasSubstr("millrace_cpu_budget_cores 1.5\n"));
  EXPECT_THAT(text, HasSubstr("millrace_build_info{version=\"1.2.3\",grpc=\"1.51.1\","
                              "libtorch=\"2.13.0\",commit=\"0123abc\"} 1\n"));
}

}  // namespace
}  // namespace millrace
