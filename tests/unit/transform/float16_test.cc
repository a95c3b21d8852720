// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/float16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float FromBf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

float FromFp16(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa != 0 ? std::nanf("") : sign * kInfinity;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

// Every number of 16 bits is itself; what lies between two neighbours becomes the nearer one, and
// what lies in the middle the even one. `last` is the largest; beyond its middle is infinity.
void ExpectNearest(uint16_t (*convert)(float), float (*value)(uint16_t), uint16_t infinity) {
  for (uint16_t bits = 0; bits < infinity; ++bits) {
    const float below = value(bits);
    ASSERT_EQ(convert(below), bits) << below;
    ASSERT_EQ(convert(-below), bits | 0x8000) << below;
    const auto next = static_cast<uint16_t>(bits + 1);
    // The distance to the next, which for the largest would be infinite.
    const double above =
        next < infinity ? value(next) : 2.0 * below - value(static_cast<uint16_t>(bits - 1));
    const double middle = (below + above) / 2;
    const auto middle_float = static_cast<float>(middle);
    if (middle_float != middle) continue;  // Smaller than any float.
    const uint16_t even = bits % 2 == 0 ? bits : next;
    ASSERT_EQ(convert(middle_float), even) << middle;
    ASSERT_EQ(convert(-middle_float), even | 0x8000) << middle;
    ASSERT_EQ(convert(std::nextafter(middle_float, 0.0F)), bits) << middle;
    ASSERT_EQ(convert(std::nextafter(middle_float, kInfinity)), next) << middle;
  }
  EXPECT_EQ(convert(kInfinity), infinity);
  EXPECT_EQ(convert(-kInfinity), infinity | 0x8000);
  EXPECT_EQ(convert(std::numeric_limits<float>::max()), infinity);
  for (const uint32_t nan : {0x7F80'0001U, 0x7FC0'0000U, 0x7FFF'FFFFU, 0xFF80'0001U}) {
    EXPECT_TRUE(std::isnan(value(convert(std::bit_cast<float>(nan))))) << nan;
  }
}

TEST(Float16, Fp16IsTheNearestToEveryFloat) { ExpectNearest(ToFp16, FromFp16, 0x7C00); }

TEST(Float16, Bf16IsTheNearestToEveryFloat) { ExpectNearest(ToBf16, FromBf16, 0x7F80); }

TEST(Float16, NoNumberOf16BitsIsNearerToAnyFloat) {
  std::mt19937_64 random(TestSeed());
  for (int i = 0; i < 200'000; ++i) {
    const auto given = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isfinite(given) || std::abs(given) > 65504) continue;
    const uint16_t bits = ToFp16(given);
    const double error = std::abs(double{FromFp16(bits)} - given);
    for (const int step : {-1, 1}) {
      const double other = FromFp16(static_cast<uint16_t>(bits + step));
      if (std::isfinite(other)) {
        ASSERT_LE(error, std::abs(other - given)) << given;
      }
    }
  }
}

TEST(Float16, PixelsRoundHalfUpAndStayInRange) {
  for (int pixel = 0; pixel < 256; ++pixel) {
    const auto value = static_cast<float>(pixel);
    EXPECT_EQ(ToUint8(value), pixel);
    EXPECT_EQ(ToUint8(value - 0.5F), pixel);
    EXPECT_EQ(ToUint8(value + 0.49F), pixel);
  }
  EXPECT_EQ(ToUint8(-3), 0);
  EXPECT_EQ(ToUint8(255.5F), 255);
  EXPECT_EQ(ToUint8(1000), 255);
}

}  // namespace
}  // namespace millrace
