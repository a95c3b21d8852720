// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whatever a worker says over its control socket is a reply or an error. The first byte chooses
// which reply the server waits for.
#include <cstddef>
#include <cstdint>
#include <string>

#include "server/channel/worker_protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millrace;
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 5) {
    case 0:
      (void)FromJson<LoadedReply>(text);
      break;
    case 1:
      (void)FromJson<ForkedReply>(text);
      break;
    case 2:
      (void)FromJson<ReadyReply>(text);
      break;
    case 3:
      (void)FromJson<WorkerDescription>(text);
      break;
    default:
      (void)FromJson<InspectedReply>(text);
  }
  return 0;
}
