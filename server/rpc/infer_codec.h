// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/inference/request.h"
#include "server/inference/response.h"

namespace millrace {

// The wire form of inference requests and responses (inference.ModelInferRequest and its answers),
// read and written without copying tensors. All functions are thread-safe and never block.

// A request as far as it could be read, and whether it can be served.
struct DecodedRequest {
  Request request;
  absl::Status status;
};

// Reads a ModelInferRequest. Tensors of `raw_input_contents` stay where they were received: the
// request's payloads point there, and its `payload_owner` keeps them. Typed `contents` are turned
// into the same form.
//
// It takes what libprotobuf takes. INVALID_ARGUMENT, with `id`, `model_name` and `model_version`
// filled as far as they were read, for
//  - bytes that are no ModelInferRequest,
//  - more than 256 inputs, requested outputs or raw_input_contents, 64 dimensions of a shape, or
//    4096 bytes of a name, version, id or data type,
//  - a tensor without data or with both kinds of it, typed contents that don't fit the data type
//    or the shape,
//  - what isn't offered: BYTES, shared memory, classification, sequences,
//  - a parameter with the wrong type of value, or whose name is reserved.
// Names, data types, shapes and sizes are not compared with any model: ModelSignature does that.
DecodedRequest DecodeInferRequest(const grpc::ByteBuffer& message);

// Writes the ModelInferResponse of a unary call. Small outputs are copied; large ones are sent
// from `response.memory`, which the result then owns. REQUIRES: response.status.ok().
grpc::ByteBuffer EncodeInferResponse(Response&& response);

// Writes a ModelStreamInferResponse: the outputs as above, or an error in band, which carries the
// canonical code in the parameter `millrace_status_code` and, where the response says when to try
// again, `millrace_retry_after_us`. Either way it is marked as the request's final response.
grpc::ByteBuffer EncodeStreamResponse(Response&& response);

// Writes the ModelStreamInferResponse that is no answer but tells a client which asked for it that
// its stream is about to end: of a response it has nothing but the parameter `millrace_draining`.
grpc::ByteBuffer EncodeDrainNotice();

}  // namespace millrace
