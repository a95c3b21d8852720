// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/infer_context.h"

#include <utility>

namespace millrace {

Response RefusalOf(Request& request, const absl::Status& status, absl::Time arrival,
                   const InferContext& context) {
  Response response = Response::Error(status);
  response.id = std::move(request.id);
  response.model_name = std::move(request.model_name);
  response.model_version = std::move(request.model_version);
  response.trace = std::move(request.trace);
  response.timings.arrival = arrival;
  response.timings.answered = context.clock->Now();
  return response;
}

}  // namespace millrace
