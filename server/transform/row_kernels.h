// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "server/inference/data_type.h"

namespace millrace {

// The inner loops that make a row's pixels, for one kind of processor. A line is of pixels with
// red, green and blue in turn; a plane is of one channel.
struct RowKernels {
  // line[i] = the sum of weights[k] * rows[k][i] over the taps k, for the first `count` values i.
  void (*mix_rows)(const uint8_t* const* rows, const float* weights, int taps, size_t count,
                   float* line);

  // planes[c][i] = the sum of weights[i * taps + k] * line[3 * (first[i] + k) + c] over the taps k,
  // for the first `count` pixels i. Reads, and ignores, one value after the last pixel.
  void (*mix_columns)(const float* line, const int* first, const float* weights, int taps,
                      size_t count, float* const* planes);

  // planes[c][i] = row[3 * i + c], for the first `count` pixels i.
  void (*split)(const uint8_t* row, size_t count, float* const* planes);

  // planes[0] = what ITU-R 601 calls the light of the three.
  void (*mix_gray)(float* const* planes, size_t count);

  // Writes planes[c][i] * factors[c] + biases[c] as `type` (FP32, FP16, BF16 or UINT8, which is
  // rounded) to element i * channels + c of `into`, of any alignment; 1 or 3 channels.
  void (*store)(const float* const* planes, const float* factors, const float* biases, int channels,
                size_t count, DataType type, std::byte* into);

  // Makes a row of pixels of their light (16 to 235), and of what their colour adds to red, green
  // and blue, in 20 bits of fraction with a half for rounding.
  void (*mix_yuv)(const uint8_t* light, const int32_t* const* chroma, size_t count, uint8_t* row);
};

// For every processor of this architecture.
const RowKernels& PortableRowKernels();

// For the one that this runs on.
const RowKernels& NativeRowKernels();

}  // namespace millrace
