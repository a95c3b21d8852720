// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/batch_caps.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

RowShape Shape(int64_t width) { return {.dims = {{width}}, .row_bytes = {4}}; }

TEST(BatchCaps, HalveAndRecoverByShape) {
  BatchCaps caps;
  const absl::Time begin = absl::UnixEpoch();
  EXPECT_EQ(caps.For(Shape(1), 32, begin), 32);
  caps.RanOut(Shape(1), 32, begin);
  EXPECT_EQ(caps.For(Shape(1), 32, begin), 16);
  EXPECT_EQ(caps.For(Shape(2), 32, begin), 32);
  caps.RanOut(Shape(1), 16, begin);
  EXPECT_EQ(caps.For(Shape(1), 32, begin), 8);
  EXPECT_EQ(caps.For(Shape(1), 4, begin), 4);
  EXPECT_EQ(caps.For(Shape(1), 32, begin + BatchCaps::kDoublesAfter), 16);
  EXPECT_EQ(caps.For(Shape(1), 32, begin + absl::Hours(1000)), 32);
}

TEST(BatchCaps, OneRowSaysNothingOfSizes) {
  BatchCaps caps;
  const absl::Time begin = absl::UnixEpoch();
  for (const int64_t rows : {8, 4, 2, 1}) caps.RanOut(Shape(1), rows, begin);
  EXPECT_EQ(caps.For(Shape(1), 8, begin), 8);
}

}  // namespace
}  // namespace millrace
