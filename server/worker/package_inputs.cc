// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/package_inputs.h"

#include <ATen/ops/empty_strided.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/inference/shape.h"
#include "server/worker/input_check.h"
#include "server/worker/model_error.h"
#include "server/worker/process.h"
#include "server/worker/tensors.h"

namespace millrace {
namespace {

using torch::inductor::AOTIModelContainerRunner;

constexpr int64_t kOddStride = 7;  // That no contiguous tensor of the sizes below has.
constexpr int64_t kHugeDim = int64_t{1} << 40;
constexpr int kMostQuestions = 100;  // For one input; each answers one thing of at most 8 dims.

// An input as far as the package has told it.
struct Draft {
  c10::ScalarType type = c10::ScalarType::Float;
  std::vector<int64_t> sizes = std::vector<int64_t>(kMostDims, 1);
  std::vector<int64_t> strides = std::vector<int64_t>(kMostDims, kOddStride);
  std::vector<DimRange> ranges = std::vector<DimRange>(kMostDims);
  size_t rank = 0;

  at::Tensor Make(c10::DeviceType device) const {
    return at::empty_strided(sizes, strides, at::TensorOptions(type).device(device));
  }
};

absl::Status Untold(absl::string_view text) {
  return absl::UnimplementedError(absl::StrCat("the package doesn't tell what it takes: ", text));
}

// Asks about one input after the other. The one in question has no memory (it is on the device
// "meta"): that is what a package checks last, so it never gets to run.
class Questioner {
 public:
  Questioner(AOTIModelContainerRunner& runner, size_t count) : runner_(runner), drafts_(count) {}

  absl::StatusOr<std::vector<PackageInput>> Ask() {
    std::vector<PackageInput> inputs;
    for (size_t i = 0; i < drafts_.size(); ++i) {
      MILLRACE_RETURN_IF_ERROR(AskAllOf(i));
      MILLRACE_RETURN_IF_ERROR(AskForUpperBounds(i));
      const std::optional<DataType> type = ToDataType(drafts_[i].type);
      if (!type)
        return Untold(
            absl::StrCat("a type of number of its own: ", c10::toString(drafts_[i].type)));
      inputs.push_back(
          {.data_type = *type,
           .dims = {drafts_[i].ranges.begin(),
                    drafts_[i].ranges.begin() + static_cast<ptrdiff_t>(drafts_[i].rank)}});
    }
    return inputs;
  }

 private:
  // What is wrong with input `i`, when those before it are right.
  absl::StatusOr<InputFault> FaultOf(size_t i, const Draft& draft) {
    std::vector<at::Tensor> inputs;
    for (size_t k = 0; k < drafts_.size(); ++k) {
      inputs.push_back(k < i ? drafts_[k].Make(c10::kCPU) : draft.Make(c10::kMeta));
    }
    const absl::Status status = CatchModelErrors([&]() -> absl::Status {
      runner_.boxed_run(std::move(inputs));
      return absl::OkStatus();
    });
    if (status.ok()) return Untold("it checks nothing");
    const std::optional<InputFault> fault = ParseInputFault(status.message());
    if (!fault || fault->input != i || fault->dim >= kMostDims) return Untold(status.message());
    return *fault;
  }

  absl::Status AskAllOf(size_t i) {
    Draft& draft = drafts_[i];
    for (int question = 0; question < kMostQuestions; ++question) {
      MILLRACE_ASSIGN_OR_RETURN(const InputFault fault, FaultOf(i, draft));
      if (fault.kind == InputFault::Kind::kDevice) return absl::OkStatus();
      if (fault.kind != InputFault::Kind::kDataType)
        draft.rank = std::max(draft.rank, fault.dim + 1);
      switch (fault.kind) {
        case InputFault::Kind::kDataType:
          if (fault.expected < 0 ||
              fault.expected >= static_cast<int64_t>(c10::ScalarType::NumOptions)) {
            return Untold(absl::StrCat("a type of the number ", fault.expected));
          }
          draft.type = static_cast<c10::ScalarType>(fault.expected);
          break;
        case InputFault::Kind::kDim:
          draft.ranges[fault.dim] = {.least = fault.expected, .most = fault.expected};
          draft.sizes[fault.dim] = fault.expected;
          break;
        case InputFault::Kind::kDimTooSmall:
          draft.ranges[fault.dim].least = fault.expected;
          draft.sizes[fault.dim] = fault.expected;
          break;
        case InputFault::Kind::kStride:
          draft.strides[fault.dim] = fault.expected;
          break;
        default:
          return Untold("a size of 1 is too large for a dimension");
      }
    }
    return Untold("its checks contradict each other");
  }

  absl::Status AskForUpperBounds(size_t i) {
    for (size_t dim = 0; dim < drafts_[i].rank; ++dim) {
      if (!drafts_[i].ranges[dim].is_open()) continue;
      Draft huge = drafts_[i];
      huge.sizes[dim] = kHugeDim;
      MILLRACE_ASSIGN_OR_RETURN(const InputFault fault, FaultOf(i, huge));
      if (fault.kind == InputFault::Kind::kDimTooLarge && fault.dim == dim) {
        drafts_[i].ranges[dim].most = fault.expected;
      }
    }
    return absl::OkStatus();
  }

  AOTIModelContainerRunner& runner_;
  std::vector<Draft> drafts_;
};

using Json = nlohmann::json;

std::string ToText(const std::vector<PackageInput>& inputs) {
  Json json = Json::array();
  for (const PackageInput& input : inputs) {
    Json dims = Json::array();
    for (const DimRange& dim : input.dims) dims.push_back({dim.least, dim.most});
    json.push_back({static_cast<int>(input.data_type), dims});
  }
  return json.dump();
}

absl::StatusOr<std::vector<PackageInput>> FromText(const std::string& text) {
  try {
    std::vector<PackageInput> inputs;
    for (const Json& json : Json::parse(text)) {
      PackageInput input = {.data_type = static_cast<DataType>(json.at(0).get<int>()), .dims = {}};
      for (const Json& dim : json.at(1)) {
        input.dims.push_back({.least = dim.at(0).get<int64_t>(), .most = dim.at(1).get<int64_t>()});
      }
      inputs.push_back(std::move(input));
    }
    return inputs;
  } catch (const Json::exception& error) {
    return absl::InternalError(absl::StrCat("a child's answer made no sense: ", error.what()));
  }
}

}  // namespace

absl::StatusOr<std::vector<PackageInput>> AskForInputs(AOTIModelContainerRunner& runner,
                                                       size_t count) {
  MILLRACE_ASSIGN_OR_RETURN(const std::string text, AskChild([&]() -> absl::StatusOr<std::string> {
                              setenv("AOTI_RUNTIME_CHECK_INPUTS", "1", /*overwrite=*/1);
                              MILLRACE_ASSIGN_OR_RETURN(const auto inputs,
                                                        Questioner(runner, count).Ask());
                              return ToText(inputs);
                            }));
  return FromText(text);
}

}  // namespace millrace
