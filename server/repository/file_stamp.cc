// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/file_stamp.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace millrace {

FileStamp FileStamp::Of(const std::string& path) {
  struct stat file = {};
  if (stat(path.c_str(), &file) != 0) return FileStamp();
  return {.device = file.st_dev,
          .inode = file.st_ino,
          .bytes = file.st_size,
          .changed_ns = absl::ToUnixNanos(absl::TimeFromTimespec(file.st_mtim))};
}

std::string FileStamp::ToString() const {
  return absl::StrCat(device, ":", inode, ":", bytes, ":", changed_ns);
}

}  // namespace millrace
