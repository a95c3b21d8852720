// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Lets Prometheus's own linter judge what we expose. promtool is $MILLRACE_PROMTOOL, or what the
// project's setup put into .cache/tools; without it the test is skipped.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/metrics/metrics_registry.h"
#include "server/metrics/server_metrics.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

std::string PromtoolPath() {
  const char* path = std::getenv("MILLRACE_PROMTOOL");
  return path != nullptr ? path : MILLRACE_SOURCE_DIR "/.cache/tools/promtool";
}

// promtool's exit status for `exposition`; it says on stderr what it dislikes.
int CheckMetrics(const std::string& exposition) {
  FILE* promtool = popen(absl::StrCat("'", PromtoolPath(), "' check metrics").c_str(), "w");
  if (promtool == nullptr) return -1;
  fwrite(exposition.data(), 1, exposition.size(), promtool);
  const int status = pclose(promtool);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class PromtoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access(PromtoolPath().c_str(), X_OK) != 0) {
      GTEST_SKIP() << PromtoolPath() << " not found; set MILLRACE_PROMTOOL to promtool's path.";
    }
    registry_.AddSource([this] { return server_.Collect(); });
    server_.SetTlsCertificateExpiry(absl::FromUnixSeconds(2'000'000'000));
    busy_->SetGauges([] {
      ModelGauges gauges;
      gauges.replicas.push_back({.index = 0, .device = "cpu"});
      gauges.costs.resize(1);
      gauges.costs[0].shape = "3x224x224";
      gauges.costs[0].replica_kind = "cpu";
      return gauges;
    });
    busy_->RecordRequest({});
    BatchRecord batch;
    batch.rows = 3;
    batch.execute = absl::Milliseconds(7);
    busy_->RecordBatch(batch);
    registry_.AddSource([this] { return FromElsewhere(); });
  }

  // What the server and its models show of themselves.
  std::set<const Metric*> Shown() const {
    std::set<const Metric*> shown;
    for (const Sample& sample : server_.Collect()) shown.insert(sample.metric);
    for (const Sample& sample : busy_->Collect()) shown.insert(sample.metric);
    return shown;
  }

  // A series of each metric that other folders show.
  std::vector<Sample> FromElsewhere() const {
    const std::set<const Metric*> shown = Shown();
    std::vector<Sample> samples;
    for (const Metric* metric : kAllMetrics) {
      if (shown.contains(metric)) continue;
      std::vector<std::string> labels;
      for (const char* label : metric->labels) {
        if (label != nullptr) labels.emplace_back("x");
      }
      samples.push_back({metric, std::move(labels), 2.0});
    }
    return samples;
  }

  FakeClock clock_;
  ServerMetrics server_{{"0.1.0", "1.51.1", "2.13.0", "0123abc"}};
  const std::shared_ptr<ModelMetrics> busy_ =
      std::make_shared<ModelMetrics>("busy", "2", 8, clock_, /*has_transform=*/true);
  MetricsRegistry registry_;
};

TEST_F(PromtoolTest, AcceptsAServerWithoutModels) {
  EXPECT_EQ(CheckMetrics(registry_.Render()), 0);
}

TEST_F(PromtoolTest, AcceptsAServerWithModels) {
  const auto idle = std::make_shared<ModelMetrics>("idle \"quoted\"\\", "1", 0, clock_);
  registry_.AddModel(idle);
  registry_.AddModel(busy_);
  const std::string exposition = registry_.Render();
  for (const Metric* metric : Shown()) {
    EXPECT_NE(exposition.find(metric->name), std::string::npos) << metric->name;
  }
  EXPECT_EQ(CheckMetrics(exposition), 0);
}

TEST_F(PromtoolTest, WhatOthersShowIsNoHistogram) {
  // Its samples above would be wrong.
  for (const Sample& sample : FromElsewhere()) {
    EXPECT_NE(sample.metric->type, MetricType::kHistogram) << sample.metric->name;
  }
}

TEST_F(PromtoolTest, RefusesABadName) {
  EXPECT_NE(CheckMetrics("# HELP a_count_total_ms x\n# TYPE a_count_total_ms counter\n"
                         "a_count_total_ms 1\n"),
            0);
}

}  // namespace
}  // namespace millrace
