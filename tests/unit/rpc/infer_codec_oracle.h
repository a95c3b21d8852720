// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grpcpp/support/byte_buffer.h"

namespace millrace {

// `bytes` as a received message in slices of `sizes`, taken in turn and over again; one slice
// where there are none.
grpc::ByteBuffer Sliced(absl::string_view bytes, absl::Span<const size_t> sizes);

// All bytes of `buffer`.
std::string Joined(const grpc::ByteBuffer& buffer);

struct Verdict {
  bool parsed = false;       // libprotobuf takes the bytes.
  bool accepted = false;     // And they are a request that can be served.
  std::string disagreement;  // Where DecodeInferRequest() says otherwise; empty: nowhere.
};

// Decodes a ModelInferRequest with DecodeInferRequest() and with libprotobuf and compares.
// REQUIRES: texts within are at most 4096 bytes long.
Verdict CompareWithProtobuf(absl::string_view bytes, absl::Span<const size_t> sizes);

}  // namespace millrace
