// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/repository_tree.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/repository/file_stamp.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

// Versions lie in a model's directory, files in a version's.
constexpr int kDepth = 2;
constexpr int kMostLinks = 40;  // As the kernel follows.

// Adds the directories that hold the links by which `path` is reached.
void AddHoldersOfLinks(const fs::path& path, std::set<std::string>& directories) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  std::deque<fs::path> rest(absolute.begin(), absolute.end());
  fs::path here;
  for (int links = 0; !rest.empty();) {
    const fs::path name = rest.front();
    rest.pop_front();
    const fs::path next = here / name;
    if (!fs::is_symlink(next, error)) {
      here = next;
      continue;
    }
    directories.insert(here.string());
    const fs::path target = fs::read_symlink(next, error);
    if (error || ++links > kMostLinks) return;
    if (target.is_absolute()) here.clear();
    rest.insert(rest.begin(), target.begin(), target.end());
  }
}

// The names in a directory, without hidden ones.
absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  while (!error && entries != fs::directory_iterator()) {
    const std::string name = entries->path().filename().string();
    if (name.front() != '.') names.push_back(name);
    entries.increment(error);
  }
  if (error) return ErrnoStatus(error.value(), absl::StrCat("can't list '", directory, "'"));
  std::sort(names.begin(), names.end());
  return names;
}

void ReadDirectory(const std::string& directory, int depth, std::string& stamp,
                   std::set<std::string>& directories) {
  directories.insert(directory);
  AddHoldersOfLinks(directory, directories);
  const absl::StatusOr<std::vector<std::string>> names = NamesIn(directory);
  if (!names.ok()) return absl::StrAppend(&stamp, names.status().message());
  for (const std::string& name : *names) {
    const std::string path = absl::StrCat(directory, "/", name);
    std::error_code error;
    absl::StrAppend(&stamp, name, "\n");
    if (fs::is_directory(path, error)) {
      if (depth > 1) ReadDirectory(path, depth - 1, stamp, directories);
    } else {
      if (fs::is_symlink(path, error)) AddHoldersOfLinks(path, directories);
      absl::StrAppend(&stamp, FileStamp::Of(path).ToString(), "\n");
    }
  }
}

}  // namespace

absl::StatusOr<RepositoryTree> ReadRepositoryTree(absl::Span<const std::string> repositories) {
  RepositoryTree tree;
  for (const std::string& repository : repositories) {
    tree.directories.insert(repository);
    AddHoldersOfLinks(repository, tree.directories);
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(repository));
    for (const std::string& name : names) {
      const std::string path = absl::StrCat(repository, "/", name);
      std::error_code error;
      if (!fs::is_directory(path, error)) continue;
      std::string& stamp = tree.stamps[name];
      absl::StrAppend(&stamp, path, "\n");
      ReadDirectory(path, kDepth, stamp, tree.directories);
    }
  }
  return tree;
}

}  // namespace millrace
