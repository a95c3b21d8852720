// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/model_signature.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// The payloads of a checked request's inputs, and what is made of those that are transformed.
class InputsFiller final : public Filler {
 public:
  using Transformed = absl::InlinedVector<std::unique_ptr<TransformedInput>, 1>;

  // `transformed` is empty, or holds null for inputs whose payload is copied.
  InputsFiller(absl::InlinedVector<Payload, 1> payloads, Transformed transformed,
               std::shared_ptr<const RowShape> shape, std::shared_ptr<const void> owner)
      : payloads_(std::move(payloads)),
        transformed_(std::move(transformed)),
        shape_(std::move(shape)),
        owner_(std::move(owner)) {}

  bool needs_preparation() const override { return !transformed_.empty(); }

  absl::Status Prepare(int64_t row) override {
    for (const auto& input : transformed_) {
      if (input != nullptr) MILLRACE_RETURN_IF_ERROR(input->Prepare(row));
    }
    return absl::OkStatus();
  }

  absl::Status Fill(int64_t first_row, int64_t rows,
                    absl::Span<const absl::Span<std::byte>> areas) const override {
    for (size_t i = 0; i < areas.size(); ++i) {
      const size_t row_bytes = shape_->row_bytes[i];
      if (transformed_.empty() || transformed_[i] == nullptr) {
        payloads_[i].CopyTo(static_cast<size_t>(first_row) * row_bytes, areas[i]);
        continue;
      }
      for (int64_t row = 0; row < rows; ++row) {
        transformed_[i]->Write(first_row + row,
                               areas[i].subspan(static_cast<size_t>(row) * row_bytes, row_bytes));
      }
    }
    return absl::OkStatus();
  }

  void Annotate(Parameters& parameters) const override {
    for (const auto& input : transformed_) {
      if (input != nullptr) input->Annotate(parameters);
    }
  }

  uint64_t Fingerprint() const override {
    constexpr size_t kSamples = 64;
    std::array<std::byte, 64> sample;
    size_t hash = 0;
    for (const Payload& payload : payloads_) {
      const size_t step = std::max(sample.size(), payload.size() / kSamples);
      hash = absl::HashOf(hash, payload.size());
      for (size_t begin = 0; begin < payload.size(); begin += step) {
        const auto piece =
            absl::MakeSpan(sample).first(std::min(sample.size(), payload.size() - begin));
        payload.CopyTo(begin, piece);
        hash = absl::HashOf(
            hash, absl::string_view(reinterpret_cast<const char*>(piece.data()), piece.size()));
      }
    }
    return hash;
  }

 private:
  const absl::InlinedVector<Payload, 1> payloads_;
  const Transformed transformed_;
  const std::shared_ptr<const RowShape> shape_;
  const std::shared_ptr<const void> owner_;
};

std::shared_ptr<const RowShape> FixedRowShape(const std::vector<TensorSpec>& inputs) {
  auto shape = std::make_shared<RowShape>();
  for (const TensorSpec& input : inputs) {
    const std::optional<int64_t> elements = ElementCount(input.dims);
    if (!elements) return nullptr;
    shape->dims.push_back(input.dims);
    shape->row_bytes.push_back(static_cast<size_t>(*elements) * ElementSize(input.data_type));
  }
  return shape;
}

std::string Names(const std::vector<TensorSpec>& specs) {
  return absl::StrJoin(specs, ", ", [](std::string* out, const TensorSpec& spec) {
    absl::StrAppend(out, "'", spec.name, "'");
  });
}

std::optional<int> IndexOf(const std::vector<TensorSpec>& specs, const std::string& name) {
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].name == name) return static_cast<int>(i);
  }
  return std::nullopt;
}

// Clients choose names and shapes; a message quotes a bounded part of them.
std::string Quoted(const std::string& text) {
  constexpr size_t kMost = 128;
  if (text.size() <= kMost) return absl::StrCat("'", text, "'");
  return absl::StrCat("'", text.substr(0, kMost), "…' (", text.size(), " bytes)");
}

std::string ShapeText(absl::Span<const int64_t> dims) {
  constexpr size_t kMost = 16;
  if (dims.size() <= kMost) return ToString(dims);
  return absl::StrCat(ToString(dims.subspan(0, kMost)), "… (", dims.size(), " dimensions)");
}

bool Matches(absl::Span<const int64_t> expected, absl::Span<const int64_t> dims) {
  if (expected.size() != dims.size()) return false;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] < 0 || (expected[i] >= 0 && expected[i] != dims[i])) return false;
  }
  return true;
}

}  // namespace

ModelSignature::ModelSignature(std::string model_name, int64_t version, int64_t max_batch_size,
                               std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs)
    : model_name_(std::move(model_name)),
      version_(absl::StrCat(version)),
      version_number_(version),
      max_batch_size_(max_batch_size),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      fixed_row_shape_(FixedRowShape(inputs_)) {}

absl::StatusOr<CheckedRequest> ModelSignature::Check(Request request) const {
  using Order = absl::InlinedVector<int, 1>;
  MILLRACE_ASSIGN_OR_RETURN(const Order order, InputOrder(request));
  CheckedRequest checked;
  checked.rows = batched() ? -1 : 1;
  InputsFiller::Transformed transformed;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const InputTensor& input = request.inputs[order[i]];
    if (inputs_[i].transform == nullptr) {
      MILLRACE_RETURN_IF_ERROR(CheckInput(inputs_[i], input, &checked.rows));
      continue;
    }
    transformed.resize(inputs_.size());
    MILLRACE_ASSIGN_OR_RETURN(transformed[i],
                              Transform(inputs_[i], input, request.parameters, &checked.rows));
  }
  MILLRACE_RETURN_IF_ERROR(SelectOutputs(request, checked));
  checked.row_shape = fixed_row_shape_ ? fixed_row_shape_ : RowShapeOf(request, order);
  MILLRACE_RETURN_IF_ERROR(CheckRows(checked));
  absl::InlinedVector<Payload, 1> payloads;
  for (const int index : order) {
    Payload& payload = request.inputs[index].payload;
    checked.held_bytes += static_cast<int64_t>(payload.size());
    payloads.push_back(std::move(payload));
  }
  for (const auto& input : transformed) {
    if (input != nullptr) checked.held_bytes += input->held_bytes();
  }
  checked.filler =
      std::make_unique<InputsFiller>(std::move(payloads), std::move(transformed), checked.row_shape,
                                     std::move(request.payload_owner));
  return checked;
}

// For each input of the model, where the request has it.
absl::StatusOr<absl::InlinedVector<int, 1>> ModelSignature::InputOrder(
    const Request& request) const {
  absl::InlinedVector<int, 1> order(inputs_.size(), -1);
  for (size_t i = 0; i < request.inputs.size(); ++i) {
    const std::optional<int> index = IndexOf(inputs_, request.inputs[i].name);
    if (!index) {
      return absl::InvalidArgumentError(absl::StrCat("unexpected input ",
                                                     Quoted(request.inputs[i].name), " for model '",
                                                     model_name_, "'; it takes ", Names(inputs_)));
    }
    if (order[*index] >= 0) {
      return absl::InvalidArgumentError(absl::StrCat("input '", request.inputs[i].name,
                                                     "' for model '", model_name_,
                                                     "' is given more than once"));
    }
    order[*index] = static_cast<int>(i);
  }
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (order[i] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("input '", inputs_[i].name, "' for model '", model_name_, "' is missing; ",
                       request.inputs.size(), " of ", inputs_.size(), " inputs came"));
    }
  }
  return order;
}

template <typename... Pieces>
absl::Status ModelSignature::Wrong(const TensorSpec& spec, const Pieces&... pieces) const {
  return absl::InvalidArgumentError(
      absl::StrCat("input '", spec.name, "' for model '", model_name_, "': ", pieces...));
}

absl::Status ModelSignature::CountRows(const TensorSpec& spec, int64_t came, int64_t* rows) const {
  if (!batched()) return absl::OkStatus();
  if (*rows >= 0 && *rows != came) {
    return Wrong(spec, came, " rows came, but another input of the request has ", *rows);
  }
  *rows = came;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TransformedInput>> ModelSignature::Transform(
    const TensorSpec& spec, const InputTensor& input, const Parameters& parameters,
    int64_t* rows) const {
  auto transformed = spec.transform->Take(input, parameters, batched());
  if (!transformed.ok()) return Wrong(spec, transformed.status().message());
  MILLRACE_RETURN_IF_ERROR(CountRows(spec, (*transformed)->rows(), rows));
  return transformed;
}

absl::Status ModelSignature::CheckInput(const TensorSpec& spec, const InputTensor& input,
                                        int64_t* rows) const {
  const auto error = [&](const auto&... pieces) { return Wrong(spec, pieces...); };
  if (input.data_type != WireName(spec.data_type)) {
    return error("data type ", Quoted(input.data_type), " came, expected '",
                 WireName(spec.data_type), "'");
  }
  absl::Span<const int64_t> dims = input.shape;
  Shape expected = spec.dims;
  if (batched()) expected.insert(expected.begin(), -1);
  if (!Matches(expected, dims)) {
    return error("shape ", ShapeText(dims), " came, expected ", ToString(expected));
  }
  if (batched() && dims[0] < 1) {
    return error("shape ", ToString(dims), " has no rows; send at least 1");
  }
  MILLRACE_RETURN_IF_ERROR(CountRows(spec, batched() ? dims[0] : 1, rows));
  const std::optional<int64_t> elements = ElementCount(dims);
  int64_t bytes = 0;
  if (!elements || __builtin_mul_overflow(
                       *elements, static_cast<int64_t>(ElementSize(spec.data_type)), &bytes)) {
    return error("shape ", ToString(dims), " has more elements than can be addressed");
  }
  if (static_cast<int64_t>(input.payload.size()) != bytes) {
    return error(input.payload.size(), " bytes came, expected ", bytes, " for shape ",
                 ToString(dims), " of ", WireName(spec.data_type));
  }
  return absl::OkStatus();
}

// The bytes that came bound the rows, and so the work and the answer, but for rows without any.
absl::Status ModelSignature::CheckRows(const CheckedRequest& checked) const {
  const auto& bytes = checked.row_shape->row_bytes;
  const bool empty = std::all_of(bytes.begin(), bytes.end(), [](size_t each) { return each == 0; });
  if (!batched() || !empty || checked.rows <= max_batch_size_) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(checked.rows, " rows without any bytes came for ",
                                                 "model '", model_name_, "'; send at most ",
                                                 max_batch_size_));
}

absl::Status ModelSignature::SelectOutputs(const Request& request, CheckedRequest& checked) const {
  if (request.requested_outputs.empty()) {
    for (size_t i = 0; i < outputs_.size(); ++i) checked.outputs.push_back(static_cast<int>(i));
    return absl::OkStatus();
  }
  for (const auto& [name, classes] : request.requested_outputs) {
    const std::optional<int> index = IndexOf(outputs_, name);
    if (!index) {
      return absl::InvalidArgumentError(absl::StrCat("unexpected requested output ", Quoted(name),
                                                     " for model '", model_name_, "'; it returns ",
                                                     Names(outputs_)));
    }
    for (const int earlier : checked.outputs) {
      if (earlier == *index) {
        return absl::InvalidArgumentError(
            absl::StrCat("output '", name, "' of model '", model_name_, "' is requested twice"));
      }
    }
    checked.outputs.push_back(*index);
    const TensorSpec& output = outputs_[static_cast<size_t>(*index)];
    if (classes == 0) continue;
    if (!CanBeClassified(output.data_type)) {
      return absl::InvalidArgumentError(absl::StrCat("output '", name, "' of model '", model_name_,
                                                     "' is ", WireName(output.data_type),
                                                     ", which has no classes; classification takes "
                                                     "integers, FP32 and FP64"));
    }
    checked.classes.resize(checked.outputs.size());
    checked.classes.back() = {.most = classes, .labels = output.labels};
  }
  if (!checked.classes.empty()) checked.classes.resize(checked.outputs.size());
  return absl::OkStatus();
}

std::shared_ptr<const RowShape> ModelSignature::RowShapeOf(
    const Request& request, const absl::InlinedVector<int, 1>& order) const {
  auto shape = std::make_shared<RowShape>();
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const Shape& dims = request.inputs[order[i]].shape;
    Shape row = inputs_[i].dims;
    if (inputs_[i].transform == nullptr) row.assign(dims.begin() + (batched() ? 1 : 0), dims.end());
    const int64_t elements = *ElementCount(row);
    shape->row_bytes.push_back(static_cast<size_t>(elements) * ElementSize(inputs_[i].data_type));
    shape->dims.push_back(std::move(row));
  }
  return shape;
}

}  // namespace millrace
