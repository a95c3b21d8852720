// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <istream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {
inline namespace client {

// The files that a run goes through, one after the other: sources in the order given, what a folder
// or a pattern names sorted by name. Folders are read as they are come to, so that a million files
// take little memory. Thread-compatible.
class FileList {
 public:
  // A source is a file; a folder, for all files in it and below; a pattern with *, ? and [ ] in
  // names, and ** for any number of folders; @FILE, or - for `in`, with a path on each line. Names
  // that begin with a dot are found only by patterns that do, too. `in` outlives this.
  FileList(std::vector<std::string> sources, std::istream& in);
  ~FileList();

  // The next file; nothing after the last. A file that is named itself needn't exist.
  // INVALID_ARGUMENT where a folder or pattern names none, or a list can't be read.
  absl::StatusOr<std::optional<std::string>> Next();

 private:
  class Walk;
  absl::Status OpenNext();

  const std::vector<std::string> sources_;
  std::istream& in_;
  size_t next_source_ = 0;
  std::unique_ptr<Walk> walk_;  // Of the current source, where it is a folder or a pattern.
  std::unique_ptr<std::ifstream> list_;  // The current source, where it is a file with paths.
  std::istream* lines_ = nullptr;        // The current source, where it is a list.
  std::optional<std::string> file_;      // The current source, where it is a file.
};

// How many files `sources` name; nothing where that can't be known before they are read.
std::optional<int64_t> CountFiles(const std::vector<std::string>& sources);

}  // namespace client
}  // namespace millrace
