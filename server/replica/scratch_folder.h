// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/base/unique_fd.h"

namespace millrace {

// A folder that a worker may fill, under $TMPDIR or /tmp, removed with everything in it when this
// object goes. What a server that was killed has left behind, the next one removes: a folder in
// use is locked by its server.
class ScratchFolder {
 public:
  // Makes an empty one that is `uid`'s where this process is root, and removes those that are
  // nobody's any more.
  static absl::StatusOr<std::unique_ptr<ScratchFolder>> Create(uid_t uid);
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  ScratchFolder(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  const std::string path_;
  const UniqueFd lock_;
};

}  // namespace millrace
