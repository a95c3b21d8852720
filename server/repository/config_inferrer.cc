// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/config_inferrer.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/repository/inferred_config.h"

namespace millrace {

namespace {

// Whether the file is to blame; else another try may end otherwise.
bool IsFinal(const absl::Status& status) {
  return status.ok() || absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status);
}

}  // namespace

void ConfigInferrer::Complete(ModelDirectory& directory, int given_up) {
  if (!directory.lacks_config) return;
  const std::optional<ModelVersion> version = NewestPackage(directory.path);
  if (!version) return;
  auto known = known_.find(version->path);
  if (known == known_.end() || known->second.stamp != version->stamp ||
      !IsFinal(known->second.config.status())) {
    Known found = {version->stamp, ConfigOf(directory.name, *version, given_up)};
    known = known_.insert_or_assign(version->path, std::move(found)).first;
  }
  const absl::StatusOr<std::string>& config = known->second.config;
  if (config.ok()) {
    directory = ReadModelDirectory(directory.path, *config);
  } else {
    directory.status =
        Annotate(config.status(), absl::StrCat("there is no config.pbtxt, and ", version->path,
                                               " doesn't tell what it takes and returns"));
  }
}

absl::StatusOr<std::string> ConfigInferrer::ConfigOf(const std::string& model,
                                                     const ModelVersion& version, int given_up) {
  MILLRACE_ASSIGN_OR_RETURN(const UniqueFd file, OpenModelFile(version));
  MILLRACE_ASSIGN_OR_RETURN(const Inspection inspection, inspect_(version, file.get(), given_up));
  LogInfo("model '", model, "' has no config.pbtxt and is served as ", version.path,
          " tells: ", absl::StrReplaceAll(DescribeInspection(inspection), {{"\n", "; "}}));
  return InferredConfig(inspection);
}

}  // namespace millrace
