// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/input_check.h"

#include <gtest/gtest.h>

#include <string>

namespace millrace {
namespace {

using Kind = InputFault::Kind;

void ExpectFault(const std::string& text, size_t input, Kind kind, size_t dim, int64_t expected) {
  const std::optional<InputFault> fault = ParseInputFault(text);
  ASSERT_TRUE(fault) << text;
  EXPECT_EQ(fault->input, input) << text;
  EXPECT_EQ(fault->kind, kind) << text;
  EXPECT_EQ(fault->dim, dim) << text;
  EXPECT_EQ(fault->expected, expected) << text;
}

// As the code of a package throws them, and libtorch passes them on.
TEST(InputCheck, EveryCheckOfAPackageIsUnderstood) {
  ExpectFault("input_handles[0]: unmatched dtype, expected: 6(at::kFloat), but got: 4\n", 0,
              Kind::kDataType, 0, 6);
  ExpectFault(
      "run_func_( … ) API call failed: input_handles[12]: unmatched dim value at 1, "
      "expected: 768, but got: 1\n",
      12, Kind::kDim, 1, 768);
  ExpectFault("input_handles[0]: dim value is too small at 0, expected it to be >= 2, but got: 1\n",
              0, Kind::kDimTooSmall, 0, 2);
  ExpectFault("input_handles[1]: dim value is too large at 3, expected to be <= 8, but got: 16\n",
              1, Kind::kDimTooLarge, 3, 8);
  ExpectFault("input_handles[0]: unmatched stride value at 2, expected: 1, but got: 7\n", 0,
              Kind::kStride, 2, 1);
  ExpectFault("input_handles[0]: unmatched device type, expected: 00(cpu), but got: 13\n", 0,
              Kind::kDevice, 0, 0);
}

TEST(InputCheck, OtherTextsAreNone) {
  for (const char* const text :
       {"", "expected: 6", "input_handles[", "input_handles[x]: unmatched dtype, expected: 6",
        "input_handles[0]", "input_handles[0]: something else, expected: 6",
        "input_handles[0]: unmatched dtype, ", "input_handles[0]: unmatched dim value at x",
        "input_handles[0]: unmatched dim value at 1, expected: many",
        "input_handles[99999999999999999999]: unmatched dtype, expected: 6",
        "output_handles[0]: unmatched dtype, expected: 6"}) {
    EXPECT_FALSE(ParseInputFault(text)) << text;
  }
}

}  // namespace
}  // namespace millrace
