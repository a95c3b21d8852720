// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/base/check.h"
#include "server/dispatch/caller.h"
#include "server/dispatch/pending_request.h"
#include "server/inference/model_signature.h"
#include "tests/fakes/plain_batch_buffer.h"

namespace millrace {

// A model in plain C++: one INT32 input "X" of any width, one output "Y" = 2 * X + 1.
inline int32_t Echo(int32_t x) { return 2 * x + 1; }

// A batch in which this value occurs fails.
inline constexpr int32_t kCulprit = -4711;

inline std::shared_ptr<const ModelSignature> EchoSignature(int64_t max_batch_size,
                                                           int64_t output_width = -1) {
  const std::vector<TensorSpec> inputs = {{"X", DataType::kInt32, {-1}}};
  const std::vector<TensorSpec> outputs = {{"Y", DataType::kInt32, {output_width}}};
  return std::make_shared<ModelSignature>("echo", 1, max_batch_size, inputs, outputs);
}

// A request of `values`, in `rows` rows.
inline Request EchoRequest(const ModelSignature& signature, const std::vector<int32_t>& values,
                           int64_t rows = 1) {
  auto owner = std::make_shared<const std::vector<int32_t>>(values);
  InputTensor input;
  input.name = "X";
  input.data_type = "INT32";
  if (signature.batched()) input.shape.push_back(rows);
  input.shape.push_back(static_cast<int64_t>(values.size()) / rows);
  input.payload.Append(
      {reinterpret_cast<const std::byte*>(owner->data()), owner->size() * sizeof(int32_t)});
  Request request;
  request.inputs.push_back(std::move(input));
  request.payload_owner = std::move(owner);
  return request;
}

inline std::shared_ptr<PendingRequest> EchoPending(const ModelSignature& signature,
                                                   const std::vector<int32_t>& values, int64_t rows,
                                                   Responder responder,
                                                   std::shared_ptr<const Caller> caller) {
  auto checked = signature.Check(EchoRequest(signature, values, rows));
  MILLRACE_CHECK(checked.ok(), "The test's own request fits the model.");
  return std::make_shared<PendingRequest>(*std::move(checked), std::move(responder),
                                          std::move(caller));
}

// The values in a tensor's bytes.
inline std::vector<int32_t> Int32s(absl::Span<const std::byte> bytes) {
  std::vector<int32_t> values(bytes.size() / sizeof(int32_t));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// The values that are right for an answer to `values`.
inline std::vector<int32_t> Echoes(std::vector<int32_t> values) {
  for (int32_t& value : values) value = Echo(value);
  return values;
}

// Runs the sealed rows of `buffer`; the outputs lie in the buffer.
inline absl::StatusOr<std::vector<OutputView>> RunEcho(PlainBatchBuffer& buffer, bool batched) {
  const int64_t rows = buffer.sealed_rows;
  std::vector<int32_t> values = Int32s(buffer.InputRows(0, 0, rows));
  for (int32_t& value : values) {
    if (value == kCulprit) return absl::InternalError("the model raised an exception");
    value = Echo(value);
  }
  buffer.outputs.resize(values.size() * sizeof(int32_t));
  if (!values.empty()) std::memcpy(buffer.outputs.data(), values.data(), buffer.outputs.size());
  OutputView output = {.data_type = DataType::kInt32, .shape = {}, .data = buffer.outputs};
  if (batched) output.shape.push_back(rows);
  output.shape.push_back(buffer.shape().dims[0][0]);
  return std::vector<OutputView>{output};
}

}  // namespace millrace
