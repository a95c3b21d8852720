// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/call_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::ElementsAre;

constexpr char kLeaf[] = R"({"type": null, "context": null, "children_spec": []})";

std::string Node(const std::string& type, const std::string& context, const std::string& children) {
  return R"({"type": ")" + type + R"(", "context": ")" + context + R"(", "children_spec": [)" +
         children + "]}";
}

TEST(CallSpec, PositionalTensorsHaveNoNamesAndKeywordsDo) {
  const std::string leaf = kLeaf;
  const std::string text =
      "[1, " +
      Node("builtins.tuple", "null",
           Node("builtins.tuple", "null", leaf + "," + leaf) + "," +
               Node("builtins.dict", R"([\"mask\", \"scale\"])", leaf + "," + leaf)) +
      "]";
  const auto tensors = TensorsOfCallSpec(text);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_THAT(*tensors, ElementsAre("", "", "mask", "scale"));
}

TEST(CallSpec, ASingleTensorIsALeaf) {
  const auto tensors = TensorsOfCallSpec(std::string("[1, ") + kLeaf + "]");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_THAT(*tensors, ElementsAre(""));
}

TEST(CallSpec, OtherTextIsAnError) {
  for (const std::string text : {"", "[]", "[1, {}]", "[1, 2]", "{"}) {
    EXPECT_EQ(TensorsOfCallSpec(text).status().code(), absl::StatusCode::kInternal) << text;
  }
}

}  // namespace
}  // namespace millrace
