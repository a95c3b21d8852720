// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metric_names.h"

#include <gmock/gmock.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

std::string ReadDocumentation() {
  std::ifstream file(MILLRACE_SOURCE_DIR "/docs/metrics.md");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string TypeName(const Metric& metric) {
  switch (metric.type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "";
}

// The line of the documentation's tables that describes `metric` begins like this.
std::string RowOf(const Metric& metric) {
  std::string labels;
  for (const char* label : metric.labels) {
    if (label != nullptr) labels += (labels.empty() ? "" : ", ") + std::string(label);
  }
  return std::string("| `") + metric.name + "` | " + TypeName(metric) + " | " +
         (labels.empty() ? "–" : labels) + " |";
}

TEST(MetricNames, EveryMetricIsDocumentedWithItsTypeAndLabels) {
  const std::string text = ReadDocumentation();
  for (const Metric* metric : kAllMetrics) EXPECT_THAT(text, HasSubstr(RowOf(*metric)));
  for (const Metric* metric : kTritonMetrics) EXPECT_THAT(text, HasSubstr(RowOf(*metric)));
}

TEST(MetricNames, EveryNameInTheDocumentationExists) {
  std::set<std::string> names;
  for (const Metric* metric : kAllMetrics) {
    names.insert(metric->name);
    if (metric->type != MetricType::kHistogram) continue;
    for (const char* suffix : {"_bucket", "_sum", "_count"}) {
      names.insert(std::string(metric->name) + suffix);
    }
  }
  const std::string text = ReadDocumentation();
  for (const Metric* metric : kTritonMetrics) names.insert(metric->name);
  for (const std::string prefix : {"millrace_", "process_", "nv_"}) {
    for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at + 1)) {
      // What a recording rule is called has a colon before or after it.
      const size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", at);
      const bool part = at > 0 && (text[at - 1] == ':' || text[at - 1] == '_');
      const bool pattern = text.compare(end, 3, "\u2026") == 0;  // nv_… stands for all of them.
      if (part || pattern) continue;
      EXPECT_THAT(names, Contains(text.substr(at, end - at)));
    }
  }
}

TEST(MetricNames, NamesAreUniqueAndSayTheirUnit) {
  std::set<std::string> names;
  for (const Metric* metric : kAllMetrics) {
    const std::string name = metric->name;
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_TRUE(name.rfind("millrace_", 0) == 0 || name.rfind("process_", 0) == 0) << name;
    const bool total = name.size() > 6 && name.substr(name.size() - 6) == "_total";
    EXPECT_EQ(total, metric->type == MetricType::kCounter) << name;
  }
}

}  // namespace
}  // namespace millrace
