// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/wire.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/grpc.h"

namespace millrace {
inline namespace client {
namespace {

inference::InferParameter ToMessage(const Parameter& parameter) {
  inference::InferParameter message;
  if (const auto* flag = std::get_if<bool>(&parameter)) message.set_bool_param(*flag);
  if (const auto* number = std::get_if<int64_t>(&parameter)) message.set_int64_param(*number);
  if (const auto* number = std::get_if<uint64_t>(&parameter)) message.set_uint64_param(*number);
  if (const auto* number = std::get_if<double>(&parameter)) message.set_double_param(*number);
  if (const auto* text = std::get_if<std::string>(&parameter)) message.set_string_param(*text);
  return message;
}

Parameter FromMessage(const inference::InferParameter& message) {
  switch (message.parameter_choice_case()) {
    case inference::InferParameter::kBoolParam:
      return message.bool_param();
    case inference::InferParameter::kInt64Param:
      return message.int64_param();
    case inference::InferParameter::kUint64Param:
      return message.uint64_param();
    case inference::InferParameter::kDoubleParam:
      return message.double_param();
    default:
      return message.string_param();
  }
}

absl::StatusCode InBandCode(const inference::ModelInferResponse& response) {
  const auto parameter = response.parameters().find("millrace_status_code");
  if (parameter == response.parameters().end()) return absl::StatusCode::kUnknown;
  const int64_t code = parameter->second.int64_param();
  const bool is_error =
      code > 0 && code <= static_cast<int64_t>(absl::StatusCode::kUnauthenticated);
  return is_error ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown;
}

}  // namespace

inference::ModelInferRequest ToMessage(Request request) {
  inference::ModelInferRequest message;
  message.set_model_name(std::move(request.model));
  message.set_model_version(std::move(request.version));
  message.set_id(std::move(request.id));
  for (const auto& [key, value] : request.parameters) {
    (*message.mutable_parameters())[key] = ToMessage(value);
  }
  for (Tensor& input : request.inputs) {
    auto* tensor = message.add_inputs();
    tensor->set_name(std::move(input.name));
    tensor->set_datatype(std::move(input.datatype));
    tensor->mutable_shape()->Assign(input.shape.begin(), input.shape.end());
    message.add_raw_input_contents(std::move(input.data));
  }
  for (std::string& output : request.outputs) {
    auto* wanted = message.add_outputs();
    wanted->set_name(std::move(output));
    if (request.classes > 0) {
      (*wanted->mutable_parameters())["classification"].set_int64_param(request.classes);
    }
  }
  return message;
}

Parameters ParametersOf(const inference::ModelInferResponse& message) {
  Parameters parameters;
  for (const auto& [key, value] : message.parameters()) parameters[key] = FromMessage(value);
  return parameters;
}

absl::StatusOr<Response> FromMessage(inference::ModelInferResponse& message) {
  if (message.outputs_size() != message.raw_output_contents_size()) {
    return absl::InternalError(absl::StrCat(
        "the server's response names ", message.outputs_size(), " outputs but carries ",
        message.raw_output_contents_size(), " raw contents; expected one for each"));
  }
  Response response{std::move(*message.mutable_model_name()),
                    std::move(*message.mutable_model_version()),
                    std::move(*message.mutable_id()),
                    {},
                    {}};
  response.parameters = ParametersOf(message);
  response.outputs.reserve(message.outputs_size());
  for (int i = 0; i < message.outputs_size(); ++i) {
    auto& output = *message.mutable_outputs(i);
    response.outputs.push_back({std::move(*output.mutable_name()),
                                std::move(*output.mutable_datatype()),
                                {output.shape().begin(), output.shape().end()},
                                std::move(*message.mutable_raw_output_contents(i))});
  }
  return response;
}

absl::StatusOr<Response> FromMessage(inference::ModelStreamInferResponse& message) {
  if (message.error_message().empty()) return FromMessage(*message.mutable_infer_response());
  return absl::Status(InBandCode(message.infer_response()), message.error_message());
}

bool IsDrainNotice(const inference::ModelStreamInferResponse& message) {
  if (!message.infer_response().model_name().empty()) return false;  // The name of an answer's.
  const auto& parameters = message.infer_response().parameters();
  const auto draining = parameters.find("millrace_draining");
  return draining != parameters.end() && draining->second.bool_param();
}

absl::Status ToAbslStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::Status CheckMetadata(const Metadata& metadata) {
  for (const auto& [key, value] : metadata) {
    const grpc_slice key_slice = grpc_slice_from_static_buffer(key.data(), key.size());
    const grpc_slice value_slice = grpc_slice_from_static_buffer(value.data(), value.size());
    if (grpc_header_key_is_legal(key_slice) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key '", key,
                       "' is not one; expected lower-case letters, digits, '-', '_', '.'"));
    }
    if (!grpc_is_binary_header(key_slice) && grpc_header_nonbin_value_is_legal(value_slice) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the value of metadata '", key,
                       "' is not printable ASCII; binary values need a key that ends in '-bin'"));
    }
  }
  return absl::OkStatus();
}

void AddMetadata(const Metadata& metadata, grpc::ClientContext& context) {
  for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
}

gpr_timespec DeadlineAfter(absl::Duration timeout) {
  if (timeout == absl::InfiniteDuration()) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(absl::ToInt64Nanoseconds(timeout), GPR_TIMESPAN));
}

}  // namespace client
}  // namespace millrace
