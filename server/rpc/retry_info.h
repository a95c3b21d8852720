// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace millrace {

// When a client may come back with a unary call that was refused, in the two forms that clients
// look for. `delay` is cut to what both can say: from 0 to 2^31 - 1 ms, about 25 days.

// The value of the trailer `grpc-retry-pushback-ms` (gRPC proposal A6), rounded up to milliseconds.
std::string RetryPushback(absl::Duration delay);

// `status` with the trailer `grpc-status-details-bin`: a google.rpc.Status of the same code and
// message whose one detail is a google.rpc.RetryInfo.
grpc::Status WithRetryInfo(const grpc::Status& status, absl::Duration delay);

}  // namespace millrace
