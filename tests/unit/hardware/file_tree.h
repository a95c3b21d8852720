// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace millrace {

// A folder of files in the manner of procfs and sysfs, removed at the end.
class FileTree {
 public:
  FileTree() {
    std::string path = (std::filesystem::temp_directory_path() / "millrace-XXXXXX").string();
    root_ = mkdtemp(path.data());
  }
  ~FileTree() { std::filesystem::remove_all(root_); }
  FileTree(const FileTree&) = delete;
  FileTree& operator=(const FileTree&) = delete;

  // Writes a file, with a line break at its end, and returns the tree, for chains.
  FileTree& Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
    return *this;
  }

  const std::filesystem::path& root() const { return root_; }

 private:
  std::filesystem::path root_;
};

}  // namespace millrace
