// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/inference/data_type.h"
#include "server/inference/parameter.h"
#include "server/inference/request.h"
#include "server/inference/shape.h"

namespace millrace {

// What came for one input of a request that is transformed. Rows may be prepared and written by
// different threads at once; a row is written only after it was prepared.
class TransformedInput {
 public:
  virtual ~TransformedInput() = default;

  virtual int64_t rows() const = 0;

  // Memory that it takes until it is destroyed, at most.
  virtual int64_t held_bytes() const = 0;

  // Does what takes long, once for each row. An error is the request's answer.
  virtual absl::Status Prepare(int64_t row) = 0;

  // Writes a row of the model's input; as often as it is asked to.
  virtual void Write(int64_t row, absl::Span<std::byte> area) const = 0;

  // Adds what the client should know of it to the answer.
  virtual void Annotate(Parameters& parameters) const = 0;
};

// Makes rows of a model's input of something else that clients send in its place. Immutable, hence
// thread-safe.
class InputTransform {
 public:
  virtual ~InputTransform() = default;

  // What clients send: data type and dims, without the batch dimension.
  virtual DataType wire_data_type() const = 0;
  virtual const Shape& wire_dims() const = 0;

  // Looks at what came for the input, without doing what takes long. `batched` says whether its
  // shape begins with the batch dimension, of at least one row. What its payload points to outlives
  // the result.
  // INVALID_ARGUMENT says what came and what was expected.
  virtual absl::StatusOr<std::unique_ptr<TransformedInput>> Take(const InputTensor& input,
                                                                 const Parameters& parameters,
                                                                 bool batched) const = 0;
};

}  // namespace millrace
