// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/temp_dir.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<TempDir>> TempDir::Create() {
  const char* const outer = std::getenv("TMPDIR");
  const bool had_outer = outer != nullptr && *outer != '\0';
  std::string path = absl::StrCat(had_outer ? outer : "/tmp", "/millrace-worker-XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("making a temporary folder like ", path));
  }
  std::unique_ptr<TempDir> made(new TempDir(path, had_outer ? outer : "", had_outer));
  setenv("TMPDIR", path.c_str(), /*overwrite=*/1);
  return made;
}

TempDir::~TempDir() {
  if (had_outer_) {
    setenv("TMPDIR", outer_.c_str(), /*overwrite=*/1);
  } else {
    unsetenv("TMPDIR");
  }
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace millrace
