// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/inference/request_trace.h"
#include "server/inference/response.h"

namespace millrace {

// A request that somebody wants to see, with its answer, and what became of it. A plain value.
struct TracedRequest {
  // What is to be known of `response` before it is encoded. REQUIRES: response.trace.
  static TracedRequest Of(const char* rpc, const Response& response, absl::Time turn) {
    return {.rpc = rpc,
            .trace = response.trace,
            .model = response.model_name,
            .version = response.model_version,
            .id = response.id,
            .code = response.status.code(),
            .timings = response.timings,
            .output_bytes = response.memory_size,
            .turn = turn,
            .written = turn,
            .delivered = false};
  }

  const char* rpc;
  std::shared_ptr<const RequestTrace> trace;
  std::string model, version, id;
  absl::StatusCode code;
  Timings timings;
  size_t output_bytes;
  absl::Time turn;     // It was the answer's turn to be sent.
  absl::Time written;  // It was.
  bool delivered;      // As far as the server knows.
};

}  // namespace millrace
