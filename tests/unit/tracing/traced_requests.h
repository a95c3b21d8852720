// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "server/tracing/traced_request.h"

namespace millrace {

// A request that arrived `at`, waited for 3 ms, was run for 5 ms by replica 1 and answered 1 ms
// after that.
inline TracedRequest ServedRequest(absl::Time at, const std::string& id, uint64_t span) {
  RequestTrace trace;
  trace.context = {.trace_high = 1, .trace_low = 2, .span = span, .sampled = true};
  trace.to_file = true;
  Response response;
  response.model_name = "net";
  response.model_version = "3";
  response.id = id;
  response.trace = std::make_shared<RequestTrace>(trace);
  response.timings.arrival = at;
  response.timings.fill_begin = at + absl::Milliseconds(1);
  response.timings.fill_end = at + absl::Milliseconds(2);
  response.timings.started = at + absl::Milliseconds(3);
  response.timings.execute = absl::Milliseconds(5);
  response.timings.answered = at + absl::Milliseconds(8);
  response.timings.batch_rows = 4;
  response.timings.replica = 1;
  TracedRequest request = TracedRequest::Of("ModelInfer", response, at + absl::Milliseconds(8));
  request.written = at + absl::Milliseconds(9);
  request.delivered = true;
  return request;
}

}  // namespace millrace
