// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/stream_metrics.h"

#include <gtest/gtest.h>

#include <string>

namespace millrace {
namespace {

double Value(const StreamMetrics& streams, const Metric& metric, const std::string& name) {
  for (const Sample& sample : streams.Collect()) {
    if (sample.metric == &metric && sample.labels.front() == name) {
      return std::get<double>(sample.value);
    }
  }
  return -1;
}

TEST(StreamMetrics, StreamsOfANameCountTogether) {
  StreamMetrics streams(4);
  const auto one = streams.Open("cam-1");
  const auto two = streams.Open("cam-1");
  one->Served(absl::Milliseconds(40));
  two->Dropped();
  two->Failed();
  EXPECT_EQ(Value(streams, kStreamAnswersTotal, "cam-1"), 3);
  EXPECT_EQ(Value(streams, kStreamDropsTotal, "cam-1"), 1);
}

TEST(StreamMetrics, AgesAreThoseOfWhatWasServed) {
  StreamMetrics streams(4);
  const auto one = streams.Open("cam-1");
  one->Served(absl::Milliseconds(40));
  one->Served(absl::Milliseconds(200));
  one->Dropped();
  for (const Sample& sample : streams.Collect()) {
    if (sample.metric != &kStreamAge || sample.labels.front() != "cam-1") continue;
    const HistogramValue& age = std::get<HistogramValue>(sample.value);
    EXPECT_EQ(age.counts, (std::vector<uint64_t>{0, 0, 1, 1, 0, 0, 0, 0, 0}));
    EXPECT_NEAR(age.sum, 0.24, 1e-9);
  }
}

TEST(StreamMetrics, ThoseWithoutANameAreUnnamed) {
  StreamMetrics streams(4);
  streams.Open("")->Dropped();
  EXPECT_EQ(Value(streams, kStreamDropsTotal, "unnamed"), 1);
}

TEST(StreamMetrics, NamesBeyondTheLimitAreOthers) {
  StreamMetrics streams(2);
  const auto one = streams.Open("cam-1");
  const auto two = streams.Open("cam-2");
  const auto three = streams.Open("cam-3");
  three->Dropped();
  EXPECT_EQ(Value(streams, kStreamDropsTotal, "cam-3"), -1);
  EXPECT_EQ(Value(streams, kStreamDropsTotal, "other"), 1);
  EXPECT_EQ(streams.Collect().size(), 4u * 3);  // unnamed, other, cam-1, cam-2.
}

TEST(StreamMetrics, NameWithoutAStreamMakesRoom) {
  StreamMetrics streams(1);
  auto one = streams.Open("cam-1");
  one->Served(absl::ZeroDuration());
  one.reset();
  EXPECT_EQ(Value(streams, kStreamAnswersTotal, "cam-1"), 1);  // Until another comes.
  streams.Open("cam-2")->Dropped();
  EXPECT_EQ(Value(streams, kStreamAnswersTotal, "cam-1"), -1);
  EXPECT_EQ(Value(streams, kStreamDropsTotal, "cam-2"), 1);
}

TEST(StreamMetrics, NameKeepsItsCountsWhileItIsAway) {
  StreamMetrics streams(4);
  streams.Open("cam-1")->Dropped();
  streams.Open("cam-1")->Dropped();
  EXPECT_EQ(Value(streams, kStreamDropsTotal, "cam-1"), 2);
}

TEST(StreamMetrics, NoneAreNamedWhereThereIsNoRoom) {
  StreamMetrics streams(0);
  streams.Open("cam-1")->Dropped();
  EXPECT_EQ(Value(streams, kStreamDropsTotal, "other"), 1);
}

}  // namespace
}  // namespace millrace
