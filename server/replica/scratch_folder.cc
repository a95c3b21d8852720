// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/scratch_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "millrace-package-";

std::string OuterFolder() {
  const char* const named = std::getenv("TMPDIR");
  return named != nullptr && *named != '\0' ? named : "/tmp";
}

UniqueFd OpenFolder(const std::string& path) {
  return UniqueFd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

// Whether the lock of this folder was free and is this process's now, and the folder still there.
bool Lock(const UniqueFd& folder) {
  struct stat now = {};
  return folder.valid() && flock(folder.get(), LOCK_EX | LOCK_NB) == 0 &&
         fstat(folder.get(), &now) == 0 && now.st_nlink > 0;
}

void RemoveAbandoned(const std::string& outer) {
  std::error_code error;
  for (fs::directory_iterator entry(outer, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!absl::StartsWith(entry->path().filename().string(), kPrefix)) continue;
    const UniqueFd folder = OpenFolder(entry->path().string());
    std::error_code ignored;
    if (Lock(folder)) fs::remove_all(entry->path(), ignored);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ScratchFolder>> ScratchFolder::Create(uid_t uid) {
  const std::string outer = OuterFolder();
  RemoveAbandoned(outer);
  for (;;) {
    std::string path = absl::StrCat(outer, "/", kPrefix, "XXXXXX");
    if (mkdtemp(path.data()) == nullptr) {
      return ErrnoStatus(errno, absl::StrCat("making a temporary folder like ", path));
    }
    UniqueFd folder = OpenFolder(path);
    if (!Lock(folder)) continue;  // Another server took it for an abandoned one.
    std::unique_ptr<ScratchFolder> made(new ScratchFolder(path, std::move(folder)));
    // The group stays root's: a worker that could not leave root has no other way in. Where root
    // may not give it away, no worker can leave root either.
    if (geteuid() == 0 && fchmod(made->lock_.get(), S_IRWXU | S_IRWXG) == 0 &&
        fchown(made->lock_.get(), uid, 0) != 0 && errno != EPERM) {
      return ErrnoStatus(errno, absl::StrCat("giving ", path, " to the workers"));
    }
    return made;
  }
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace millrace
