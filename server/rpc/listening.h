// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"

namespace millrace {

// Starts what `builder` describes on `addresses` (host:port, where port 0 means any, or
// unix:/path), and writes down which they are, with the ports that were chosen. An address that is
// taken or makes no sense is an error that names it.
absl::StatusOr<std::unique_ptr<grpc::Server>> Listen(grpc::ServerBuilder& builder,
                                                     absl::Span<const std::string> addresses,
                                                     std::vector<std::string>* bound);

}  // namespace millrace
