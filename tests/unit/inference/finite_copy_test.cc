// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/finite_copy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace millrace {
namespace {

template <typename T>
int64_t Count(DataType type, const std::vector<T>& values) {
  const auto* const begin = reinterpret_cast<const std::byte*>(values.data());
  std::vector<T> copy(values.size());
  const int64_t count =
      CopyCountingNonFinite(type, absl::MakeConstSpan(begin, values.size() * sizeof(T)),
                            reinterpret_cast<std::byte*>(copy.data()));
  // An empty vector's data() may be null, which memcmp must not be given.
  EXPECT_TRUE(values.empty() ||
              std::memcmp(copy.data(), values.data(), values.size() * sizeof(T)) == 0);
  return count;
}

template <typename T>
std::vector<T> OddOnes() {
  using Limits = std::numeric_limits<T>;
  return {Limits::infinity(),
          -Limits::infinity(),
          Limits::quiet_NaN(),
          -Limits::quiet_NaN(),
          Limits::denorm_min(),
          Limits::max(),
          Limits::lowest(),
          0,
          T{-0.0}};
}

TEST(FiniteCopy, CountsNanAndBothInfinitiesAndNothingElse) {
  EXPECT_EQ(Count(DataType::kFp32, OddOnes<float>()), 4);
  EXPECT_EQ(Count(DataType::kFp64, OddOnes<double>()), 4);
  // Infinity, NaNs of either kind and sign, the largest finite number, the smallest, 1.
  EXPECT_EQ(Count<uint16_t>(DataType::kFp16, {0x7c00, 0xfc00, 0x7c01, 0xfe00, 0x7bff, 1, 0x3c00}),
            4);
  EXPECT_EQ(Count<uint16_t>(DataType::kBf16, {0x7f80, 0xff80, 0x7f81, 0xffc0, 0x7f7f, 1, 0x3f80}),
            4);
}

TEST(FiniteCopy, IntegersAreFinite) {
  EXPECT_EQ(Count<uint32_t>(DataType::kInt32, {0x7f800000, 0xffffffff}), 0);
  EXPECT_EQ(Count<uint16_t>(DataType::kUint16, {0x7c00, 0xffff}), 0);
  EXPECT_EQ(Count<uint8_t>(DataType::kBool, {1, 0}), 0);
}

TEST(FiniteCopy, EveryValueOfALongTensorIsLookedAt) {
  constexpr size_t kValues = 100'003;  // Several pieces, and a rest.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Count(DataType::kFp32, std::vector<float>(kValues, nan)), int64_t{kValues});
  EXPECT_EQ(Count(DataType::kFp16, std::vector<uint16_t>(kValues, 0x7c00)), int64_t{kValues});
  for (const size_t at : {size_t{0}, size_t{2047}, size_t{2048}, kValues - 1}) {
    std::vector<float> values(kValues, 1);
    values[at] = nan;
    EXPECT_EQ(Count(DataType::kFp32, values), 1) << at;
  }
  EXPECT_EQ(Count(DataType::kFp32, std::vector<float>()), 0);
}

TEST(FiniteCopy, TakesWhatIsNotAligned) {
  const std::string bytes =
      std::string(1, '\0') + std::string("\x00\x00\x80\x7f\x00\x00\x80\x3f", 8);
  std::vector<std::byte> copy(9);
  EXPECT_EQ(CopyCountingNonFinite(
                DataType::kFp32,
                absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()) + 1, 8),
                copy.data() + 1),
            1);
}

}  // namespace
}  // namespace millrace
