// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whatever a worker leaves in a batch's header, the server takes outputs that lie in the buffer, or
// an error. The first byte is the status, the second the count of outputs; their headers follow.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "server/base/check.h"
#include "server/channel/shared_batch_buffer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millrace;
  if (size < 2) return 0;
  static std::vector<std::byte> bytes(kBatchHeaderBytes + 4096);
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  auto& header = *reinterpret_cast<BatchHeader*>(bytes.data());
  header.status_code = static_cast<int8_t>(data[0]);
  header.message_bytes = data[0] * 1000u;
  header.output_count = data[1];
  std::memcpy(header.outputs.data(), data + 2, std::min(size - 2, sizeof(header.outputs)));
  const SharedBatchBuffer buffer(bytes.data(), bytes.size(), 0);
  const auto outputs = buffer.ReadOutputs();
  if (!outputs.ok()) return 0;
  const std::byte* const end = bytes.data() + bytes.size();
  for (const OutputView& view : *outputs) {
    MILLRACE_CHECK(view.data.data() >= bytes.data() && view.data.data() <= end &&
                       view.data.size() <= static_cast<size_t>(end - view.data.data()),
                   "Outputs lie in the buffer.");
    MILLRACE_CHECK(ElementCount(view.shape).has_value(), "Their shapes have a size.");
  }
  return 0;
}
