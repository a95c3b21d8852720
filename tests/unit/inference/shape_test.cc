// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/shape.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <optional>

namespace millrace {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

TEST(Shape, ElementCountIsTheProductWhereItFits) {
  const struct {
    Shape dims;
    std::optional<int64_t> count;
  } cases[] = {
      {{}, 1},
      {{7}, 7},
      {{2, 3, 4}, 24},
      {{2, 0, 4}, 0},
      {{kMost}, kMost},
      {{kMost, 2}, std::nullopt},
      {{int64_t{1} << 32, int64_t{1} << 32}, std::nullopt},
      {{int64_t{1} << 33, int64_t{1} << 33, 4}, std::nullopt},
      {{kMost, kMost, 0}, 0},
      {{0, kMost, kMost}, 0},
      {{-1}, std::nullopt},
      {{0, -1}, std::nullopt},
      {{-1, -1}, std::nullopt},
  };
  for (const auto& [dims, count] : cases) EXPECT_EQ(ElementCount(dims), count) << ToString(dims);
}

TEST(Shape, ReadsAsAList) {
  EXPECT_EQ(ToString({}), "[]");
  EXPECT_EQ(ToString(Shape{8, -1, 224}), "[8,-1,224]");
}

}  // namespace
}  // namespace millrace
