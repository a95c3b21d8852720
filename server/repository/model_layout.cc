// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_layout.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/repository/model_settings.h"
#include "server/repository/names.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

bool IsSameFile(const std::string& a, const std::string& b) {
  std::error_code error;
  return fs::equivalent(a, b, error) && !error;
}

// Writes a file aside by `write`, which returns whether it could, and renames it into place.
template <typename Write>
absl::Status Replace(const std::string& path, Write write) {
  const std::string aside = absl::StrCat(path, ".new");
  std::error_code error;
  if (!write(aside, error)) {
    const int number = error ? error.value() : EIO;
    fs::remove(aside, error);
    return ErrnoStatus(number, absl::StrCat("writing ", aside));
  }
  fs::rename(aside, path, error);
  return error ? ErrnoStatus(error.value(), absl::StrCat("writing ", path)) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelPlace> FindPlace(const std::string& folder, EngineKind engine,
                                     const std::string& source, bool overwrite) {
  // With "models/net/" the name is before the last slash.
  const fs::path path = fs::path(folder).lexically_normal();
  const fs::path whole = path.has_filename() ? path : path.parent_path();
  if (!IsModelName(whole.filename().string())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", whole.filename().string(),
        "' can't name a model; expected a folder <repository>/<name>, whose name is up to 128 "
        "letters, digits, '_', '-' and '.', and begins with a letter, a digit or '_'"));
  }
  ModelPlace place;
  place.folder = whole.string();
  place.config = (whole / "config.pbtxt").string();
  place.version = (whole / "1").string();
  place.file = (whole / "1" / DefaultFilename(engine)).string();
  const EngineKind other =
      engine == EngineKind::kTorchScript ? EngineKind::kAotInductor : EngineKind::kTorchScript;
  const std::string hides = (whole / "1" / DefaultFilename(other)).string();
  std::error_code error;
  if (fs::exists(hides, error)) {
    return absl::AlreadyExistsError(
        absl::StrCat(hides, " exists; choose another folder, or remove it first"));
  }
  for (const std::string& file : {place.config, place.file}) {
    if (overwrite || !fs::exists(fs::symlink_status(file, error)) || IsSameFile(file, source)) {
      continue;
    }
    return absl::AlreadyExistsError(
        absl::StrCat(file, " exists; choose another folder, or say --force to replace it"));
  }
  return place;
}

absl::Status PutModel(const ModelPlace& place, const std::string& source,
                      const std::string& config) {
  std::error_code error;
  fs::create_directories(place.version, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("making ", place.version));
  if (!IsSameFile(place.file, source)) {
    MILLRACE_RETURN_IF_ERROR(
        Replace(place.file, [&](const std::string& aside, std::error_code& failed) {
          return fs::copy_file(source, aside, fs::copy_options::overwrite_existing, failed);
        }));
  }
  return Replace(place.config, [&](const std::string& aside, std::error_code&) {
    std::ofstream file(aside, std::ios::binary | std::ios::trunc);
    return static_cast<bool>(file << config) && static_cast<bool>(file.flush());
  });
}

}  // namespace millrace
