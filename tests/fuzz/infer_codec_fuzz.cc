// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Holds DecodeInferRequest() to libprotobuf, on messages that libFuzzer makes up. The first two
// bytes say how the rest is cut into slices.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/string_view.h"
#include "tests/unit/rpc/infer_codec_oracle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const size_t sizes[] = {size_t{1} + data[0], data[1]};
  const absl::string_view bytes(reinterpret_cast<const char*>(data + 2), size - 2);
  const millrace::Verdict verdict = millrace::CompareWithProtobuf(bytes, sizes);
  if (verdict.disagreement.empty()) return 0;
  std::fprintf(stderr, "%s\n", verdict.disagreement.c_str());
  std::abort();
}
