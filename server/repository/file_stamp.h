// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace millrace {

// What tells one state of a file from another without reading it. A value.
struct FileStamp {
  // Of what `path` leads to, links followed; all zeros where nothing is there.
  static FileStamp Of(const std::string& path);

  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t bytes = 0;
  int64_t changed_ns = 0;  // The time of the last modification, in nanoseconds of the wall clock.

  bool exists() const { return inode != 0; }
  std::string ToString() const;

  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

}  // namespace millrace
