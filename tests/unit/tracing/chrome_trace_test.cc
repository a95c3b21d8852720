// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tracing/chrome_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/tracing/traced_requests.h"

namespace millrace {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

class ChromeTraceTest : public ::testing::Test {
 protected:
  // The events of a whole file with these requests, without those that name lanes.
  std::vector<json> Events(const std::vector<TracedRequest>& requests) {
    std::string text = trace_.Begin();
    for (const TracedRequest& request : requests) text += trace_.Events(request);
    text += trace_.End();
    std::vector<json> events;
    for (json& event : json::parse(text)) {
      EXPECT_TRUE(event.contains("ph")) << event;
      if (event["ph"] != "M") events.push_back(std::move(event));
    }
    return events;
  }

  const absl::Time origin_ = absl::FromUnixSeconds(100);
  ChromeTrace trace_{origin_};
};

TEST_F(ChromeTraceTest, StagesNestInTheRequest) {
  std::vector<std::string> edges;
  for (const json& event : Events({ServedRequest(origin_, "a", 7)})) {
    if (event["cat"] != "request") continue;
    EXPECT_EQ(event["id2"]["local"], "0000000000000007");
    edges.push_back(event["ph"].get<std::string>() + " " + event["name"].get<std::string>());
  }
  EXPECT_THAT(edges, ElementsAre("b rpc", "b queue", "b fill", "e fill", "e queue", "b execute",
                                 "e execute", "b reply", "e reply", "e rpc"));
}

TEST_F(ChromeTraceTest, TimesAreMicrosecondsSinceTheOriginAndNeverGoBack) {
  double last = 0;
  std::map<std::string, double> ends;
  for (const json& event : Events({ServedRequest(origin_ + absl::Seconds(1), "a", 7)})) {
    if (event["cat"] != "request") continue;
    EXPECT_GE(event["ts"].get<double>(), last);
    last = event["ts"];
    if (event["ph"] == "e") ends[event["name"]] = last;
  }
  EXPECT_EQ(ends["queue"], 1'003'000);
  EXPECT_EQ(ends["execute"], 1'008'000);
  EXPECT_EQ(ends["rpc"], 1'009'000);
}

TEST_F(ChromeTraceTest, RequestSaysWhatItIs) {
  const json event = Events({ServedRequest(origin_, "cam \"1\"\n\xff", 7)}).front();
  EXPECT_EQ(event["args"]["rpc"], "ModelInfer");
  EXPECT_EQ(event["args"]["model"], "net");
  EXPECT_EQ(event["args"]["request_id"],
            "cam \"1\"\n\xef\xbf\xbd");  // What isn't UTF-8 is replaced.
  EXPECT_EQ(event["args"]["code"], "OK");
  EXPECT_EQ(event["args"]["trace_id"], "00000000000000010000000000000002");
}

TEST_F(ChromeTraceTest, BatchIsOnceInItsReplicasLane) {
  TracedRequest neighbour = ServedRequest(origin_, "b", 8);
  TracedRequest later = ServedRequest(origin_ + absl::Milliseconds(20), "c", 9);
  TracedRequest elsewhere = ServedRequest(origin_, "d", 10);
  elsewhere.timings.replica = 2;
  std::vector<std::pair<int, double>> batches;
  for (const json& event : Events({ServedRequest(origin_, "a", 7), neighbour, later, elsewhere})) {
    if (event["ph"] != "X") continue;
    EXPECT_EQ(event["dur"], 5000);
    EXPECT_EQ(event["args"]["rows"], 4);
    batches.emplace_back(event["tid"], event["ts"]);
  }
  EXPECT_THAT(batches,
              ElementsAre(std::pair(0, 3000.0), std::pair(0, 23000.0), std::pair(1, 3000.0)));
}

TEST_F(ChromeTraceTest, RequestThatWasRefusedHasNoBatch) {
  TracedRequest refused = ServedRequest(origin_, "a", 7);
  refused.code = absl::StatusCode::kResourceExhausted;
  refused.timings.fill_begin = refused.timings.fill_end = absl::InfinitePast();
  refused.timings.started = absl::InfinitePast();
  std::vector<std::string> edges;
  for (const json& event : Events({refused})) edges.push_back(event["name"]);
  EXPECT_THAT(edges, ElementsAre("rpc", "queue", "queue", "reply", "reply", "rpc"));
}

TEST_F(ChromeTraceTest, LanesAreNamed) {
  std::string text = trace_.Begin() + trace_.Events(ServedRequest(origin_, "a", 7)) + trace_.End();
  std::vector<std::string> names;
  for (const json& event : json::parse(text)) {
    if (event["ph"] == "M" && event["args"].contains("name"))
      names.push_back(event["args"]["name"]);
  }
  EXPECT_THAT(names, ElementsAre("requests", "replicas", "net/3 replica 1"));
}

}  // namespace
}  // namespace millrace
