// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "server/inference/data_type.h"
#include "server/inference/filler.h"
#include "server/inference/request.h"
#include "server/inference/row_shape.h"
#include "server/inference/shape.h"

namespace millrace {

// One input or output of a model.
struct TensorSpec {
  std::string name;
  DataType data_type = DataType::kInvalid;
  Shape dims;  // Without the batch dimension; -1 stands for any size.
};

// A request that fits a model.
struct CheckedRequest {
  int64_t rows = 1;
  std::shared_ptr<const RowShape> row_shape;
  std::unique_ptr<const Filler> filler;
  absl::InlinedVector<int, 1> outputs;  // Indices into the signature's outputs, as asked for.
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
  absl::StatusOr<absl::InlinedVector<int, 1>> SelectOutputs(const Request& request) const;
  absl::Status CheckInput(const TensorSpec& spec, const InputTensor& input, int64_t* rows) const;
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
