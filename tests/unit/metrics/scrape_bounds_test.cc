// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// What a scrape of a large server may cost.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/base/thread.h"
#include "server/metrics/metrics_registry.h"
#include "server/metrics/server_metrics.h"

namespace millrace {
namespace {

constexpr int kModels = 200;
constexpr size_t kMostBytes = size_t{6} << 20;  // Of the text.

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  file >> pages >> pages;
  return pages * 4096;
}

class ScrapeBoundsTest : public ::testing::Test {
 protected:
  ScrapeBoundsTest() {
    for (int i = 0; i < kModels; ++i) {
      models_.push_back(std::make_shared<ModelMetrics>(absl::StrCat("model-", i), "1", 64,
                                                       Clock::Real(), /*has_transform=*/true));
      models_.back()->SetGauges([] {
        ModelGauges gauges;
        gauges.ready_replicas = 2;
        for (int index = 0; index < 2; ++index) {
          gauges.replicas.push_back({.index = index, .device = "cpu"});
        }
        gauges.costs.resize(2);
        return gauges;
      });
      registry_.AddModel(models_.back());
    }
    registry_.AddSource([this] { return server_.Collect(); });
    registry_.ShowTritonNames();
    for (int i = 0; i < 100; ++i) streams_.push_back(server_.streams().Open(absl::StrCat("c", i)));
  }

  MetricsRegistry registry_;
  ServerMetrics server_{{"1", "2", "3", "4"}, 64};
  std::vector<std::shared_ptr<ModelMetrics>> models_;
  std::vector<std::shared_ptr<StreamCounts>> streams_;
};

TEST_F(ScrapeBoundsTest, TwoHundredModelsTakeAFewMegabytesAndLessThanASecond) {
  absl::Duration best = absl::InfiniteDuration();  // Others may use the machine.
  for (int i = 0; i < 3; ++i) {
    const absl::Time begin = Clock::Real().Now();
    EXPECT_LT(registry_.Render().size(), kMostBytes);
    best = std::min(best, Clock::Real().Now() - begin);
  }
  EXPECT_LT(best, absl::Seconds(1));
}

TEST_F(ScrapeBoundsTest, MemoryDoesNotGrowByScrapes) {
  // At first the heaps of the threads fill. Then a round of scrapes must leave nothing behind.
  bool stands = false;
  for (int round = 0; round < 8 && !stands; ++round) {
    malloc_trim(0);
    const int64_t before = ResidentBytes();
    std::vector<std::unique_ptr<Thread>> threads;  // As many at once as the HTTP server has.
    for (int thread = 0; thread < 4; ++thread) {
      threads.push_back(std::make_unique<Thread>("scrape", [this] {
        for (int i = 0; i < 3; ++i) registry_.Render();
      }));
    }
    threads.clear();
    malloc_trim(0);
    stands = ResidentBytes() - before < int64_t{2} << 20;
  }
  EXPECT_TRUE(stands);
}

TEST_F(ScrapeBoundsTest, SeriesDoNotGrowByWhatIsRecorded) {
  const auto lines = [this] {
    const std::string text = registry_.Render();
    return std::count(text.begin(), text.end(), '\n');
  };
  const auto before = lines();
  for (int i = 0; i < 1000; ++i) {
    RequestRecord record;
    record.code = i % 40;  // Also ones that nobody knows.
    models_[0]->RecordRequest(record);
    server_.streams().Open(absl::StrCat("stream-", i))->Dropped();
  }
  EXPECT_EQ(lines(), before);
}

}  // namespace
}  // namespace millrace
