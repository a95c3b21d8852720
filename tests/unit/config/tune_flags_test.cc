// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/config/tune_flags.h"

#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/flags.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Command Parse(std::vector<const char*> words) {
  words.insert(words.begin(), {"/usr/bin/millrace", "tune"});
  return ParseFlags(static_cast<int>(words.size()), words.data());
}

// What is said of a command line that makes no sense.
std::string Refusal(std::vector<const char*> words) {
  const Command command = Parse(std::move(words));
  const auto* const leave = std::get_if<ExitNow>(&command);
  if (leave == nullptr) return "it was taken";
  EXPECT_EQ(leave->code, 1);
  return leave->text;
}

TEST(TuneFlags, ThroughputIsTheDefault) {
  const Command command = Parse({"models/detector"});
  const auto* const tune = std::get_if<TuneConfig>(&command);
  ASSERT_NE(tune, nullptr);
  EXPECT_EQ(tune->model, "models/detector");
  EXPECT_EQ(tune->budget, absl::Minutes(3));
  EXPECT_FALSE(tune->latency);
  EXPECT_EQ(tune->slo, absl::InfiniteDuration());
  EXPECT_EQ(tune->log_level, LogLevel::kWarning);
}

TEST(TuneFlags, AllOfThem) {
  const Command command = Parse({"--model-repository",
                                 "/",
                                 "--budget",
                                 "90s",
                                 "--slo",
                                 "50ms",
                                 "--oversubscribe",
                                 "--json",
                                 "a.json",
                                 "--plot",
                                 "a.png",
                                 "--plan",
                                 "plan.json",
                                 "--dry-run",
                                 "--pin",
                                 "--sandbox",
                                 "required",
                                 "--log-level",
                                 "info",
                                 "--max-message-bytes",
                                 "1048576"});
  const auto* const tune = std::get_if<TuneConfig>(&command);
  ASSERT_NE(tune, nullptr);
  EXPECT_THAT(tune->model_repositories, ElementsAre("/"));
  EXPECT_EQ(tune->budget, absl::Seconds(90));
  EXPECT_EQ(tune->slo, absl::Milliseconds(50));
  EXPECT_TRUE(tune->oversubscribe && tune->dry_run && tune->pin);
  EXPECT_EQ(tune->json, "a.json");
  EXPECT_EQ(tune->plot, "a.png");
  EXPECT_EQ(tune->plan, "plan.json");
  EXPECT_EQ(tune->max_message_bytes, 1 << 20);
  EXPECT_EQ(tune->sandbox, SandboxMode::kRequired);
  EXPECT_EQ(tune->log_level, LogLevel::kInfo);
}

TEST(TuneFlags, WhatMakesNoSenseIsSaid) {
  EXPECT_THAT(Refusal({}), HasSubstr("--model-repository"));
  EXPECT_THAT(Refusal({"m", "--latency", "--slo", "5ms"}), HasSubstr("--latency excludes --slo"));
  EXPECT_THAT(Refusal({"m", "--throughput", "--latency"}), HasSubstr("excludes"));
  EXPECT_THAT(Refusal({"m", "--budget", "0"}), HasSubstr("--budget"));
  EXPECT_THAT(Refusal({"m", "--slo", "0ms"}), HasSubstr("--slo"));
  EXPECT_THAT(Refusal({"m", "--slo", "soon"}), HasSubstr("no duration"));
}

}  // namespace
}  // namespace millrace
