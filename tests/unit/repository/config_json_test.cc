// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/config_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/repository/model_config.h"

namespace millrace {
namespace {

TEST(ConfigJson, SaysWhatTheJsonSays) {
  const auto text = ConfigTextOfJson(R"({"max_batch_size": 4, "input": [{"name": "x",
      "data_type": "TYPE_FP32", "dims": [2, -1]}], "output": [{"name": "y", "data_type":
      "TYPE_INT8", "dims": ["3"]}], "millrace": {"batching": {"hold": "NONE"}}})");
  ASSERT_TRUE(text.ok()) << text.status();
  const auto settings = ParseModelConfig(*text, "config", "m");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->max_batch_size, 4);
  EXPECT_THAT(settings->inputs[0].dims, testing::ElementsAre(2, -1));
  EXPECT_EQ(settings->outputs[0].data_type, DataType::kInt8);
  EXPECT_EQ(settings->hold, Hold::kNone);
}

TEST(ConfigJson, WhatMakesNoSenseIsAnError) {
  for (const char* json : {"", "{", "[]", R"({"max_batch_sizes": 1})", R"({"name": 1.5e})"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ConfigTextOfJson(json).status())) << json;
  }
}

}  // namespace
}  // namespace millrace
