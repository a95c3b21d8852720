// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/inference/engine_kind.h"

namespace millrace {

// Where a model that isn't in a repository yet is to be put: <repository>/<name>. The functions
// block on the disk.
struct ModelPlace {
  std::string folder;   // <repository>/<name>
  std::string config;   // <folder>/config.pbtxt
  std::string version;  // <folder>/1
  std::string file;     // <version>/model.pt or model.pt2
};

// The place in `folder` for a model that `engine` runs. INVALID_ARGUMENT where the folder's name is
// none for a model. ALREADY_EXISTS where a model of the other kind is there or, unless `overwrite`,
// a file that is to be written; one that is `source` itself is none.
absl::StatusOr<ModelPlace> FindPlace(const std::string& folder, EngineKind engine,
                                     const std::string& source, bool overwrite);

// Puts a copy of the file `source` and the text of a config.pbtxt into their place; each appears
// whole or not at all. What is there already is replaced.
absl::Status PutModel(const ModelPlace& place, const std::string& source,
                      const std::string& config);

}  // namespace millrace
