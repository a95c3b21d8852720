// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "server/inference/classification.h"
#include "server/inference/data_type.h"
#include "server/inference/filler.h"
#include "server/inference/input_transform.h"
#include "server/inference/request.h"
#include "server/inference/row_shape.h"
#include "server/inference/shape.h"

namespace millrace {

// What becomes of answers with values that are NaN or infinite.
enum class NonFinite { kPass, kFlag, kRefuse };

// One input or output of a model.
struct TensorSpec {
  std::string name;
  DataType data_type = DataType::kInvalid;
  Shape dims;  // Without the batch dimension; -1 stands for any size.
  // Makes rows of an input of something else that clients send; null where they send the tensor.
  std::shared_ptr<const InputTransform> transform = nullptr;

  std::shared_ptr<const Labels> labels = nullptr;  // Of an output's classes; null: none.
  NonFinite non_finite = NonFinite::kPass;         // Of an output.

  // What clients send or get: dims without the batch dimension.
  DataType wire_data_type() const { return transform ? transform->wire_data_type() : data_type; }
  const Shape& wire_dims() const { return transform ? transform->wire_dims() : dims; }
};

// A request that fits a model.
struct CheckedRequest {
  int64_t rows = 1;
  std::shared_ptr<const RowShape> row_shape;
  int64_t held_bytes = 0;  // That its inputs take until it is answered.
  std::unique_ptr<Filler> filler;
  absl::InlinedVector<int, 1> outputs;      // Indices into the signature's outputs, as asked for.
  absl::InlinedVector<Classes, 1> classes;  // For each of them; empty: no classes are asked for.
};

// What a model version takes and returns. Immutable, hence thread-safe.
class ModelSignature {
 public:
  ModelSignature(std::string model_name, int64_t version, int64_t max_batch_size,
                 std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs);

  const std::string& model_name() const { return model_name_; }
  // The version, as text and as a number.
  const std::string& version() const { return version_; }
  int64_t version_number() const { return version_number_; }
  // The most rows in a batch; 0 where tensors have no batch dimension.
  int64_t max_batch_size() const { return max_batch_size_; }
  bool batched() const { return max_batch_size_ > 0; }
  const std::vector<TensorSpec>& inputs() const { return inputs_; }
  const std::vector<TensorSpec>& outputs() const { return outputs_; }

  // The row shape where every input's dims are fixed, else null.
  const std::shared_ptr<const RowShape>& fixed_row_shape() const { return fixed_row_shape_; }

  // Checks names, data types, shapes, rows and byte counts, and moves the payloads into the
  // result's filler. INVALID_ARGUMENT names the field, what came and what was expected.
  absl::StatusOr<CheckedRequest> Check(Request request) const;

 private:
  absl::StatusOr<absl::InlinedVector<int, 1>> InputOrder(const Request& request) const;
  absl::Status SelectOutputs(const Request& request, CheckedRequest& checked) const;
  absl::Status CheckInput(const TensorSpec& spec, const InputTensor& input, int64_t* rows) const;
  absl::StatusOr<std::unique_ptr<TransformedInput>> Transform(const TensorSpec& spec,
                                                              const InputTensor& input,
                                                              const Parameters& parameters,
                                                              int64_t* rows) const;
  // Sees that an input of `came` rows has as many as those before; `rows` is below 0 before any.
  absl::Status CountRows(const TensorSpec& spec, int64_t came, int64_t* rows) const;
  template <typename... Pieces>
  absl::Status Wrong(const TensorSpec& spec, const Pieces&... pieces) const;
  absl::Status CheckRows(const CheckedRequest& checked) const;
  std::shared_ptr<const RowShape> RowShapeOf(const Request& request,
                                             const absl::InlinedVector<int, 1>& order) const;

  const std::string model_name_;
  const std::string version_;
  const int64_t version_number_;
  const int64_t max_batch_size_;
  const std::vector<TensorSpec> inputs_;
  const std::vector<TensorSpec> outputs_;
  const std::shared_ptr<const RowShape> fixed_row_shape_;
};

}  // namespace millrace
