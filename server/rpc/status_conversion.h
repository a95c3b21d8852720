// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace millrace {

// The one table between statuses inside the server and on the wire.

// The wire's code for `code`; UNKNOWN for one that is not canonical.
grpc::StatusCode ToGrpc(absl::StatusCode code);

// The code for the wire's `code`; UNKNOWN for one that is not canonical.
absl::StatusCode FromGrpc(grpc::StatusCode code);

// The message of `status` as clients may see it: valid UTF-8, never empty for an error, and cut
// ("…") so that it takes at most 3072 bytes of a trailer, where other than printable ASCII takes
// three bytes each. (Peers take 8 KiB of trailers in all.)
std::string WireMessage(const absl::Status& status);

// Code and WireMessage().
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace millrace
