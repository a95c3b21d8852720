// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

namespace millrace {

// The binary16 nearest to `value`, half to even, as its bits; NaN stays a NaN. Without branches,
// so that compilers make vectors of it.
[[gnu::always_inline]] inline uint16_t ToFp16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits & 0x8000'0000U;
  const uint32_t magnitude = bits ^ sign;
  // Normal: the exponent gets its other bias, and what is cut off rounds.
  const uint32_t odd = (magnitude >> 13) & 1;
  const uint32_t normal = (magnitude - (112U << 23) + 0xFFFU + odd) >> 13;
  // Below 2^-14: adding 0.5 has the adder do the rounding, to multiples of 2^-24.
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F00'0000U;
  const uint32_t beyond = magnitude > 0x7F80'0000U ? 0x7E00U : 0x7C00U;
  // Masks: what may not be computed in vain, as floating point may trap, gets branches.
  const uint32_t is_subnormal = -static_cast<uint32_t>(magnitude < (113U << 23));
  const uint32_t is_beyond = -static_cast<uint32_t>(magnitude >= (143U << 23));
  const uint32_t within = (subnormal & is_subnormal) | (normal & ~is_subnormal);
  const uint32_t result = (beyond & is_beyond) | (within & ~is_beyond);
  return static_cast<uint16_t>(result | (sign >> 16));
}

// The bfloat16 nearest to `value`, half to even, as its bits; NaN stays a NaN.
[[gnu::always_inline]] inline uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40U;
  return static_cast<uint16_t>((bits & 0x7FFF'FFFFU) > 0x7F80'0000U ? nan : rounded);
}

// The pixel nearest to `value`, half up, like Pillow's. REQUIRES: -2^30 < value < 2^30.
[[gnu::always_inline]] inline uint8_t ToUint8(float value) {
  const float above = value + 0.5F;
  const auto rounded = static_cast<int32_t>(above);
  const int32_t positive = rounded < 0 ? 0 : rounded;
  return static_cast<uint8_t>(positive > 255 ? 255 : positive);
}

}  // namespace millrace
