// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/inference/data_type.h"
#include "server/inference/parameter.h"
#include "server/inference/request_trace.h"
#include "server/inference/shape.h"

namespace millrace {

// One output of a response; its bytes lie in Response::memory.
struct OutputTensor {
  std::string name;
  DataType data_type = DataType::kInvalid;
  Shape shape;
  absl::Span<const std::byte> data;
};

// What a request met on its way, for metrics and for clients that ask.
struct Timings {
  absl::Duration queue;    // Arrival to the start of the (last) batch, less `fill`.
  absl::Duration prepare;  // Preparing it, added up over its rows; part of `queue`, too.
  absl::Duration fill;     // Writing the request into its batch.
  absl::Duration execute;  // The batch in the replica.
  absl::Duration output;   // Copying the batch's outputs out.
  int64_t batch_rows = 0;
  int replica = -1;
  // When it was read, written into its batch, taken by a replica, and answered; InfinitePast()
  // where it did not get so far.
  absl::Time arrival = absl::InfinitePast();
  absl::Time fill_begin = absl::InfinitePast();
  absl::Time fill_end = absl::InfinitePast();
  absl::Time started = absl::InfinitePast();
  absl::Time answered = absl::InfinitePast();
};

// The one answer to a request: outputs when `status` is OK, else the error.
struct Response {
  absl::Status status;
  std::string model_name;
  std::string model_version;
  std::string id;
  absl::InlinedVector<OutputTensor, 1> outputs;
  std::unique_ptr<std::byte[]> memory;  // The reply's own memory, never shared with a replica.
  size_t memory_size = 0;               // Bytes in `memory`.
  Parameters parameters;
  int64_t non_finite = 0;  // Values that are NaN or infinite, where they are looked for.
  Timings timings;
  bool wants_timings = false;
  std::shared_ptr<RequestTrace> trace;  // The request's; null: nobody wants to know.
  // With RESOURCE_EXHAUSTED: when the caller should try again.
  std::optional<absl::Duration> retry_after;

  // An answer that is an error.
  static Response Error(absl::Status status) {
    Response response;
    response.status = std::move(status);
    return response;
  }
};

}  // namespace millrace
