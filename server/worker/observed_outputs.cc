// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/observed_outputs.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/inference/data_type.h"
#include "server/inference/shape.h"

namespace millrace {
namespace {

std::string Describe(const TensorSpec& output) {
  return absl::StrCat(WireName(output.data_type), " ", ToString(output.dims));
}

// An output as the config of a model declares it that was run with so many rows.
absl::StatusOr<TensorSpec> Declared(const TensorSpec& output, int64_t rows) {
  if (rows == 0) return output;
  if (output.dims.empty() || output.dims[0] != rows) {
    return absl::FailedPreconditionError(absl::StrCat("output '", output.name, "' is ",
                                                      Describe(output), " where the inputs have ",
                                                      rows, rows == 1 ? " row" : " rows"));
  }
  TensorSpec declared = output;
  declared.dims.erase(declared.dims.begin());
  return declared;
}

absl::Status Merge(const TensorSpec& seen, TensorSpec& output) {
  if (seen.data_type != output.data_type || seen.dims.size() != output.dims.size() ||
      seen.name != output.name) {
    return absl::FailedPreconditionError(absl::StrCat("output '", output.name, "' is ",
                                                      Describe(output), " in one run and '",
                                                      seen.name, "' ", Describe(seen),
                                                      " in another; expected the same type and "
                                                      "number of dimensions in all"));
  }
  for (size_t i = 0; i < seen.dims.size(); ++i) {
    if (output.dims[i] != seen.dims[i]) output.dims[i] = -1;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TensorSpec>> MergeOutputs(const std::vector<ObservedRun>& runs) {
  std::vector<TensorSpec> merged;
  for (const ObservedRun& run : runs) {
    if (&run != &runs.front() && run.outputs.size() != merged.size()) {
      return absl::FailedPreconditionError(absl::StrCat("the model returns ", merged.size(),
                                                        " outputs in one run and ",
                                                        run.outputs.size(), " in another"));
    }
    for (size_t i = 0; i < run.outputs.size(); ++i) {
      MILLRACE_ASSIGN_OR_RETURN(const TensorSpec seen, Declared(run.outputs[i], run.rows));
      if (&run == &runs.front()) {
        merged.push_back(seen);
      } else {
        MILLRACE_RETURN_IF_ERROR(Merge(seen, merged[i]));
      }
    }
  }
  return merged;
}

}  // namespace millrace
