// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/kept_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"

namespace millrace {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t most_bytes) {
  // Not to wait for a writer where it is a pipe.
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("opening ", path));
  std::string text(most_bytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(file.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("reading ", path));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > most_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has more than ", most_bytes, " bytes, which is the most"));
  }
  text.resize(size);
  return text;
}

}  // namespace

KeptFiles::KeptFiles(std::string what, std::vector<std::string> paths, size_t most_bytes, Use use)
    : what_(std::move(what)),
      paths_(std::move(paths)),
      most_bytes_(most_bytes),
      use_(std::move(use)) {}

// Links are followed, so one that comes to lead elsewhere, as in Kubernetes' volumes, is a change.
std::string KeptFiles::Stamp() const {
  std::string stamp;
  for (const std::string& path : paths_) {
    struct stat file = {};
    if (stat(path.c_str(), &file) != 0) file = {};
    absl::StrAppend(&stamp, file.st_dev, ":", file.st_ino, ":", file.st_size, ":",
                    file.st_mtim.tv_sec, ".", file.st_mtim.tv_nsec, ":", file.st_ctim.tv_sec, ".",
                    file.st_ctim.tv_nsec, " ");
  }
  return stamp;
}

absl::Status KeptFiles::ReadAll() {
  std::vector<std::string> texts;
  for (const std::string& path : paths_) {
    MILLRACE_ASSIGN_OR_RETURN(std::string text, ReadFile(path, most_bytes_));
    texts.push_back(std::move(text));
  }
  return use_(std::move(texts));
}

absl::Status KeptFiles::Read() {
  used_ = Stamp();
  return Annotate(ReadAll(), absl::StrJoin(paths_, ", "));
}

absl::Status KeptFiles::Reread() {
  std::string stamp = Stamp();
  MILLRACE_RETURN_IF_ERROR(
      Annotate(ReadAll(), absl::StrCat(what_, " (", absl::StrJoin(paths_, ", "), ")")));
  used_ = std::move(stamp);
  tried_.clear();
  return absl::OkStatus();
}

void KeptFiles::Look() {
  std::string stamp = Stamp();  // Before they are read: what changes meanwhile is read again.
  if (stamp == used_) {
    tried_.clear();
    return;
  }
  const absl::Status status = ReadAll();
  if (status.ok()) {
    used_ = std::move(stamp);
    tried_.clear();
    LogInfo("took over what has changed of ", what_);
    return;
  }
  if (stamp != tried_) {
    tried_ = std::move(stamp);
    told_ = false;
  } else if (!std::exchange(told_, true)) {
    LogWarning("what has changed of ", what_,
               " can't be used, and what was there before stays: ", std::string(status.message()),
               " (", absl::StrJoin(paths_, ", "), ")");
  }
}

}  // namespace millrace
