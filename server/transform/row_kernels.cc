// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/row_kernels.h"

#include <cstring>
#include <type_traits>

#include "server/base/check.h"
#include "server/transform/float16.h"

// Each loop is written once and compiled for each kind of processor, by being inlined into
// functions that are.
#define MILLRACE_INLINE [[gnu::always_inline]] inline

namespace millrace {
namespace {

// An element of a row, which begins anywhere.
template <typename T>
struct [[gnu::packed, gnu::may_alias]] Unaligned {
  T value;
};

template <int kRows, bool kAdd>
MILLRACE_INLINE void MixSomeRows(const uint8_t* const* rows, const float* weights, size_t count,
                                 float* __restrict line) {
  const uint8_t* __restrict const row0 = rows[0];
  const uint8_t* __restrict const row1 = rows[kRows > 1 ? 1 : 0];
  const uint8_t* __restrict const row2 = rows[kRows > 2 ? 2 : 0];
  const uint8_t* __restrict const row3 = rows[kRows > 3 ? 3 : 0];
  const float weight0 = weights[0];
  const float weight1 = weights[kRows > 1 ? 1 : 0];
  const float weight2 = weights[kRows > 2 ? 2 : 0];
  const float weight3 = weights[kRows > 3 ? 3 : 0];
  for (size_t i = 0; i < count; ++i) {
    float sum = weight0 * static_cast<float>(row0[i]);
    if constexpr (kRows > 1) sum += weight1 * static_cast<float>(row1[i]);
    if constexpr (kRows > 2) sum += weight2 * static_cast<float>(row2[i]);
    if constexpr (kRows > 3) sum += weight3 * static_cast<float>(row3[i]);
    if constexpr (kAdd) sum += line[i];
    line[i] = sum;
  }
}

template <bool kAdd>
MILLRACE_INLINE void MixUpToFourRows(const uint8_t* const* rows, const float* weights, int taps,
                                     size_t count, float* line) {
  switch (taps) {
    case 1:
      return MixSomeRows<1, kAdd>(rows, weights, count, line);
    case 2:
      return MixSomeRows<2, kAdd>(rows, weights, count, line);
    case 3:
      return MixSomeRows<3, kAdd>(rows, weights, count, line);
    default:
      return MixSomeRows<4, kAdd>(rows, weights, count, line);
  }
}

MILLRACE_INLINE void MixRows(const uint8_t* const* rows, const float* weights, int taps,
                             size_t count, float* line) {
  MixUpToFourRows<false>(rows, weights, taps, count, line);
  for (int k = 4; k < taps; k += 4) {
    MixUpToFourRows<true>(rows + k, weights + k, taps - k, count, line);
  }
}

MILLRACE_INLINE void MixColumns(const float* line, const int* first, const float* weights, int taps,
                                size_t count, float* const* planes) {
  using Pixel [[gnu::vector_size(16)]] = float;  // And the next one's red.
  float* __restrict const red = planes[0];
  float* __restrict const green = planes[1];
  float* __restrict const blue = planes[2];
  for (size_t i = 0; i < count; ++i) {
    const float* from = line + static_cast<size_t>(first[i]) * 3;
    Pixel sum = {0, 0, 0, 0};
    for (int k = 0; k < taps; ++k) {
      Pixel pixel;
      std::memcpy(&pixel, from, sizeof(pixel));
      sum += pixel * weights[k];
      from += 3;
    }
    weights += taps;
    red[i] = sum[0];
    green[i] = sum[1];
    blue[i] = sum[2];
  }
}

MILLRACE_INLINE void Split(const uint8_t* __restrict row, size_t count, float* const* planes) {
  float* __restrict const red = planes[0];
  float* __restrict const green = planes[1];
  float* __restrict const blue = planes[2];
  for (size_t i = 0; i < count; ++i) {
    red[i] = row[3 * i];
    green[i] = row[3 * i + 1];
    blue[i] = row[3 * i + 2];
  }
}

MILLRACE_INLINE void MixGray(float* const* planes, size_t count) {
  float* __restrict const red = planes[0];
  const float* __restrict const green = planes[1];
  const float* __restrict const blue = planes[2];
  // Pillow's, in 1/65536: of whole pixels this is exact.
  for (size_t i = 0; i < count; ++i) {
    red[i] =
        red[i] * (19595 / 65536.0F) + green[i] * (38470 / 65536.0F) + blue[i] * (7471 / 65536.0F);
  }
}

// In 20 bits of fraction.
MILLRACE_INLINE uint8_t Rounded(int32_t value) {
  const int32_t whole = value >> 20;
  const int32_t positive = whole < 0 ? 0 : whole;
  return static_cast<uint8_t>(positive > 255 ? 255 : positive);
}

MILLRACE_INLINE void MixYuv(const uint8_t* __restrict light, const int32_t* const* chroma,
                            size_t count, uint8_t* __restrict row) {
  constexpr int32_t kLight = 1220542;
  const int32_t* __restrict const red = chroma[0];
  const int32_t* __restrict const green = chroma[1];
  const int32_t* __restrict const blue = chroma[2];
  for (size_t i = 0; i < count; ++i) {
    const int32_t above = light[i] < 16 ? 0 : light[i] - 16;
    const int32_t gray = above * kLight;
    row[3 * i] = Rounded(gray + red[i]);
    row[3 * i + 1] = Rounded(gray + green[i]);
    row[3 * i + 2] = Rounded(gray + blue[i]);
  }
}

// An element of type T as its bits.
template <DataType kType>
MILLRACE_INLINE auto Element(float value) {
  if constexpr (kType == DataType::kFp32) return value;
  if constexpr (kType == DataType::kFp16) return ToFp16(value);
  if constexpr (kType == DataType::kBf16) return ToBf16(value);
  if constexpr (kType == DataType::kUint8) return ToUint8(value);
}

template <DataType kType>
MILLRACE_INLINE void StoreAs(const float* const* planes, const float* factors, const float* biases,
                             int channels, size_t count, std::byte* into) {
  using T = Unaligned<decltype(Element<kType>(0.0F))>;
  T* __restrict const to = reinterpret_cast<T*>(into);
  const float* __restrict const plane0 = planes[0];
  const float factor0 = factors[0];
  const float bias0 = biases[0];
  if (channels == 1) {
    for (size_t i = 0; i < count; ++i) to[i].value = Element<kType>(plane0[i] * factor0 + bias0);
    return;
  }
  const float* __restrict const plane1 = planes[1];
  const float* __restrict const plane2 = planes[2];
  const float factor1 = factors[1];
  const float factor2 = factors[2];
  const float bias1 = biases[1];
  const float bias2 = biases[2];
  for (size_t i = 0; i < count; ++i) {
    to[3 * i].value = Element<kType>(plane0[i] * factor0 + bias0);
    to[3 * i + 1].value = Element<kType>(plane1[i] * factor1 + bias1);
    to[3 * i + 2].value = Element<kType>(plane2[i] * factor2 + bias2);
  }
}

MILLRACE_INLINE void Store(const float* const* planes, const float* factors, const float* biases,
                           int channels, size_t count, DataType type, std::byte* into) {
  switch (type) {
    case DataType::kFp32:
      return StoreAs<DataType::kFp32>(planes, factors, biases, channels, count, into);
    case DataType::kFp16:
      return StoreAs<DataType::kFp16>(planes, factors, biases, channels, count, into);
    case DataType::kBf16:
      return StoreAs<DataType::kBf16>(planes, factors, biases, channels, count, into);
    case DataType::kUint8:
      return StoreAs<DataType::kUint8>(planes, factors, biases, channels, count, into);
    default:
      MILLRACE_CHECK(false, "CheckImageTransform() allows no other type.");
  }
}

// The loops, compiled for the processors that TARGET says.
#define MILLRACE_KERNELS(NAME, TARGET)                                                           \
  struct NAME {                                                                                  \
    TARGET static void MixRows(const uint8_t* const* rows, const float* weights, int taps,       \
                               size_t count, float* line) {                                      \
      millrace::MixRows(rows, weights, taps, count, line);                                       \
    }                                                                                            \
    TARGET static void MixColumns(const float* line, const int* first, const float* weights,     \
                                  int taps, size_t count, float* const* planes) {                \
      millrace::MixColumns(line, first, weights, taps, count, planes);                           \
    }                                                                                            \
    TARGET static void Split(const uint8_t* row, size_t count, float* const* planes) {           \
      millrace::Split(row, count, planes);                                                       \
    }                                                                                            \
    TARGET static void MixGray(float* const* planes, size_t count) {                             \
      millrace::MixGray(planes, count);                                                          \
    }                                                                                            \
    TARGET static void Store(const float* const* planes, const float* factors,                   \
                             const float* biases, int channels, size_t count, DataType type,     \
                             std::byte* into) {                                                  \
      millrace::Store(planes, factors, biases, channels, count, type, into);                     \
    }                                                                                            \
    TARGET static void MixYuv(const uint8_t* light, const int32_t* const* chroma, size_t count,  \
                              uint8_t* row) {                                                    \
      millrace::MixYuv(light, chroma, count, row);                                               \
    }                                                                                            \
    static constexpr RowKernels kKernels = {MixRows, MixColumns, Split, MixGray, Store, MixYuv}; \
  }

MILLRACE_KERNELS(Portable, );
#ifdef __x86_64__
MILLRACE_KERNELS(Avx2, [[gnu::target("avx2,fma")]]);
#endif

}  // namespace

const RowKernels& PortableRowKernels() { return Portable::kKernels; }

const RowKernels& NativeRowKernels() {
#ifdef __x86_64__
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2) return Avx2::kKernels;
#endif
  return Portable::kKernels;
}

}  // namespace millrace
