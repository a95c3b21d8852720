// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/time/time.h"
#include "server/inference/parameter.h"
#include "server/inference/payload.h"
#include "server/inference/request_trace.h"
#include "server/inference/shape.h"

namespace millrace {

// An input tensor as the client sent it, not yet checked against any model.
struct InputTensor {
  std::string name;
  std::string data_type;  // The wire name, as received.
  Shape shape;            // With the batch dimension where the model has one.
  Payload payload;        // Elements in row-major order, little-endian, without gaps.
};

// An output that the client asks for.
struct RequestedOutput {
  std::string name;
  int64_t classes = 0;  // In place of the tensor its best so many classes; see Classify().
};

// An inference request as the client sent it, not yet checked against any model.
struct Request {
  std::string model_name;
  std::string model_version;  // Empty: the newest.
  std::string id;             // Echoed; empty where the client gave none.
  absl::InlinedVector<InputTensor, 1> inputs;
  absl::InlinedVector<RequestedOutput, 1> requested_outputs;  // Empty: all, in the model's order.
  std::optional<absl::Duration> timeout;      // From arrival; the client's own limit.
  uint64_t priority = 0;                      // 1 is the highest; 0: the model's.
  Parameters parameters;                      // For input transforms.
  Parameters echoes;                          // To be in the answer, as they came.
  bool wants_timings = false;                 // Asked for `millrace_timings`.
  std::string trace_parent;                   // As it came; empty: none did.
  std::shared_ptr<RequestTrace> trace;        // Null: nobody wants to know.
  std::shared_ptr<const void> payload_owner;  // Keeps what the payloads point to.
};

}  // namespace millrace
