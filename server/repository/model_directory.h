// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/base/unique_fd.h"
#include "server/inference/engine_kind.h"
#include "server/repository/model_settings.h"

namespace millrace {

// A version of a model on disk.
struct ModelVersion {
  int64_t number = 0;
  absl::Status status;  // Why it can't be served.
  EngineKind engine = EngineKind::kTorchScript;
  std::string path;  // Of the model's file.
  // Of a model.pt2 beside it that may run in its place, where measuring found that better; else
  // empty.
  std::string package;
  std::string stamp;  // Differs where the file or the configuration differs.
};

// What lies on disk for one model: <repository>/<name>/config.pbtxt and
// <repository>/<name>/<version>/model.pt or model.pt2. A value of the moment it was read.
struct ModelDirectory {
  std::string name;
  std::string path;
  absl::Status status;                    // Why no version can be served; `settings` needs OK.
  std::optional<ModelSettings> settings;  // The checked configuration.
  std::vector<ModelVersion> versions;     // Those that the version policy selects, ascending.
  bool lacks_config = false;              // There is no config.pbtxt; then `status` says so.
};

// Reads every model of the repositories, ordered by name. A model that can't be served is listed
// with the reason and never hinders others; a name that several repositories hold is listed once,
// as refused. Follows symbolic links that stay in their repository, skips hidden entries, opens
// nothing but config.pbtxt.
// NOT_FOUND or another error where a repository can't be listed. Blocks on the disk.
absl::StatusOr<std::vector<ModelDirectory>> ScanRepositories(
    absl::Span<const std::string> repositories);

// Reads the model `name` of the repositories, as ScanRepositories() would. NOT_FOUND where none has
// it. `config`, where it is given, is taken instead of the text of config.pbtxt.
absl::StatusOr<ModelDirectory> FindModelDirectory(
    absl::Span<const std::string> repositories, const std::string& name,
    const std::optional<std::string>& config = std::nullopt);

// Reads one model, whose name is that of its directory.
ModelDirectory ReadModelDirectory(const std::string& path,
                                  const std::optional<std::string>& config = std::nullopt);

// The newest version in a model's directory, where it holds an AOTInductor package under its
// default name and no other model.
std::optional<ModelVersion> NewestPackage(const std::string& path);

// The folder of the version's model, and that of its repository: a version is a file
// <repository>/<model>/<version>/<file>.
std::string ModelFolderOf(const ModelVersion& version);
std::string RepositoryOf(const ModelVersion& version);

// The version with the file that runs where `engine` is chosen: its own, or the package beside it.
// Nullopt where it has none for that engine.
std::optional<ModelVersion> VersionOn(const ModelVersion& version, EngineKind engine);

// Opens the file of a version, which must lie in its repository, and holds it to its manifests; see
// CheckManifests(). Blocks on the disk.
absl::StatusOr<UniqueFd> OpenModelFile(const ModelVersion& version);

// The SHA-256 of the file of a version, in small hex digits, with the errors of OpenModelFile().
// Blocks for the time of reading the whole file.
absl::StatusOr<std::string> HashOf(const ModelVersion& version);

// Picks from the versions on disk (ascending) those that the policy selects, ascending. A version
// that the policy names is picked whether it is there or not.
std::vector<int64_t> SelectVersions(const VersionPolicy& policy,
                                    absl::Span<const int64_t> available);

// The number in a version directory's name: a positive decimal number without leading zeros, sign
// or anything else; nullopt where it isn't one.
std::optional<int64_t> ParseVersion(absl::string_view name);

}  // namespace millrace
