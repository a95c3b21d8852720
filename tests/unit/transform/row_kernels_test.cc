// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/row_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

// Both kinds, against the sentence in the header, for lengths around those of vectors.
class RowKernelsTest : public testing::TestWithParam<const RowKernels*> {
 protected:
  std::vector<uint8_t> Bytes(size_t count) {
    std::vector<uint8_t> bytes(count);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_());
    return bytes;
  }
  std::vector<float> Floats(size_t count) {
    std::vector<float> floats(count);
    for (float& value : floats) value = std::uniform_real_distribution<float>(0, 255)(random_);
    return floats;
  }

  const RowKernels& kernels_ = *GetParam();
  std::mt19937_64 random_{TestSeed()};
};

TEST_P(RowKernelsTest, RowsAreMixed) {
  for (size_t count = 0; count < 70; ++count) {
    const int taps = 1 + static_cast<int>(count % 11);
    std::vector<std::vector<uint8_t>> rows;
    std::vector<const uint8_t*> pointers;
    for (int k = 0; k < taps; ++k) rows.push_back(Bytes(count));
    for (const auto& row : rows) pointers.push_back(row.data());
    const std::vector<float> weights = Floats(static_cast<size_t>(taps));
    std::vector<float> line(count);
    kernels_.mix_rows(pointers.data(), weights.data(), taps, count, line.data());
    for (size_t i = 0; i < count; ++i) {
      double sum = 0;
      for (size_t k = 0; k < rows.size(); ++k) sum += double{weights[k]} * rows[k][i];
      ASSERT_NEAR(line[i], sum, 1e-6 * sum + 1e-6) << count << " " << i;
    }
  }
}

TEST_P(RowKernelsTest, ColumnsAreMixed) {
  for (size_t count = 1; count < 40; ++count) {
    const size_t taps = 1 + count % 9;
    std::vector<float> line = Floats(3 * (count + taps) + 1);
    const std::vector<float> weights = Floats(count * taps);
    std::vector<int> first;
    for (size_t i = 0; i < count; ++i) first.push_back(static_cast<int>(random_() % (count + 1)));
    std::array<std::vector<float>, 3> planes;
    for (auto& plane : planes) plane.resize(count);
    const std::array<float*, 3> pointers = {planes[0].data(), planes[1].data(), planes[2].data()};
    kernels_.mix_columns(line.data(), first.data(), weights.data(), static_cast<int>(taps), count,
                         pointers.data());
    for (size_t i = 0; i < count; ++i) {
      for (size_t c = 0; c < 3; ++c) {
        double sum = 0;
        for (size_t k = 0; k < taps; ++k) {
          sum += double{weights[i * taps + k]} * line[3 * (static_cast<size_t>(first[i]) + k) + c];
        }
        ASSERT_NEAR(planes[c][i], sum, 1e-6 * sum + 1e-6);
      }
    }
  }
}

TEST_P(RowKernelsTest, PixelsAreSplitAndTheirLightIsPillows) {
  for (size_t count = 0; count < 70; ++count) {
    const std::vector<uint8_t> row = Bytes(3 * count);
    std::array<std::vector<float>, 3> planes;
    for (auto& plane : planes) plane.resize(count);
    const std::array<float*, 3> pointers = {planes[0].data(), planes[1].data(), planes[2].data()};
    kernels_.split(row.data(), count, pointers.data());
    for (size_t i = 0; i < 3 * count; ++i) ASSERT_EQ(planes[i % 3][i / 3], row[i]);
    kernels_.mix_gray(pointers.data(), count);
    for (size_t i = 0; i < count; ++i) {
      const int light = row[3 * i] * 19595 + row[3 * i + 1] * 38470 + row[3 * i + 2] * 7471;
      ASSERT_EQ(planes[0][i], static_cast<float>(light / 65536.0));
    }
  }
}

TEST_P(RowKernelsTest, ElementsOfEveryTypeAreStoredAnywhere) {
  for (const DataType type :
       {DataType::kFp32, DataType::kFp16, DataType::kBf16, DataType::kUint8}) {
    const size_t size = ElementSize(type);
    const std::array<float, 3> factors = {0.5, 1, 0.25};
    const std::array<float, 3> biases = {-3, 0, 100};
    for (size_t count = 0; count < 70; ++count) {
      const std::array<std::vector<float>, 3> planes = {Floats(count), Floats(count),
                                                        Floats(count)};
      const std::array<const float*, 3> pointers = {planes[0].data(), planes[1].data(),
                                                    planes[2].data()};
      for (const size_t channels : {1, 3}) {
        const size_t begin = count % 5;
        std::vector<std::byte> bytes(begin + count * channels * size + 1, std::byte{0xA5});
        kernels_.store(pointers.data(), factors.data(), biases.data(), static_cast<int>(channels),
                       count, type, bytes.data() + begin);
        EXPECT_EQ(bytes.back(), std::byte{0xA5});
        for (size_t i = 0; i < count * channels; ++i) {
          const size_t c = i % channels;
          const float expected = planes[c][i / channels] * factors[c] + biases[c];
          uint32_t bits = 0;
          std::memcpy(&bits, bytes.data() + begin + i * size, size);
          float value = 0;
          float tolerance = 0.5001F;  // UINT8.
          if (type == DataType::kFp32) {
            std::memcpy(&value, &bits, 4);
            tolerance = 1e-4F;
          } else if (type == DataType::kBf16) {
            bits <<= 16;
            std::memcpy(&value, &bits, 4);
            tolerance = 1;
          } else if (type == DataType::kFp16) {
            value = std::ldexp(static_cast<float>((bits & 1023) + 1024),
                               static_cast<int>(bits >> 10 & 31) - 25) *
                    ((bits & 0x8000) != 0 ? -1 : 1);
            tolerance = 0.125;
          } else {
            value = static_cast<float>(bits);
          }
          ASSERT_NEAR(value, type == DataType::kUint8 ? std::max(0.0F, expected) : expected,
                      tolerance)
              << WireName(type) << " " << count << " " << i;
        }
      }
    }
  }
}

TEST_P(RowKernelsTest, ColoursAreAddedToLight) {
  for (size_t count = 0; count < 70; ++count) {
    const std::vector<uint8_t> light = Bytes(count);
    std::array<std::vector<int32_t>, 3> chroma;
    for (auto& values : chroma) {
      for (size_t i = 0; i < count; ++i) {
        values.push_back(std::uniform_int_distribution<>(-270'000'000, 270'000'000)(random_));
      }
    }
    const std::array<const int32_t*, 3> pointers = {chroma[0].data(), chroma[1].data(),
                                                    chroma[2].data()};
    std::vector<uint8_t> row(3 * count);
    kernels_.mix_yuv(light.data(), pointers.data(), count, row.data());
    for (size_t i = 0; i < 3 * count; ++i) {
      const int64_t sum = std::max(0, light[i / 3] - 16) * 1220542 + chroma[i % 3][i / 3];
      ASSERT_EQ(row[i], std::clamp<int64_t>(sum >> 20, 0, 255)) << count << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Portable, RowKernelsTest, testing::Values(&PortableRowKernels()));
INSTANTIATE_TEST_SUITE_P(Native, RowKernelsTest, testing::Values(&NativeRowKernels()));

}  // namespace
}  // namespace millrace
