// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/metadata.h"
#include "client/request.h"
#include "client/response.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "proto/grpc_service.pb.h"

// Between the client's plain values and what travels. Pure functions; not installed.
namespace millrace {
inline namespace client {

// The message for `request`; tensor bytes are moved, not copied.
inference::ModelInferRequest ToMessage(Request request);

// The response in `message`, whose bytes are moved out; INTERNAL when its outputs and its raw
// contents don't match.
absl::StatusOr<Response> FromMessage(inference::ModelInferResponse& message);

// The parameters in `message`.
Parameters ParametersOf(const inference::ModelInferResponse& message);

// The response or the in-band error in `message`. An error's code comes from its parameter
// `millrace_status_code`, and is UNKNOWN where a server sends none.
absl::StatusOr<Response> FromMessage(inference::ModelStreamInferResponse& message);

// Whether `message` is no answer, but tells that the stream is about to end (`millrace_draining`).
bool IsDrainNotice(const inference::ModelStreamInferResponse& message);

absl::Status ToAbslStatus(const grpc::Status& status);

// INVALID_ARGUMENT for a key or value that gRPC would abort the process for.
absl::Status CheckMetadata(const Metadata& metadata);

// Adds `metadata`, which was checked, to the call's headers.
void AddMetadata(const Metadata& metadata, grpc::ClientContext& context);

// The deadline `timeout` from now, as gRPC takes it.
gpr_timespec DeadlineAfter(absl::Duration timeout);

}  // namespace client
}  // namespace millrace
