// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/file_list.h"

#include <fnmatch.h>

#include <algorithm>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
inline namespace client {
namespace {

namespace fs = std::filesystem;

constexpr char kWildcards[] = "*?[";

bool IsPattern(const std::string& source) {
  return source.find_first_of(kWildcards) != std::string::npos;
}

// Whether the names of a path, from `path` on, match those of a pattern.
using Names = std::vector<std::string>;
bool Matches(Names::const_iterator pattern, Names::const_iterator pattern_end,
             Names::const_iterator path, Names::const_iterator path_end) {
  for (; pattern != pattern_end; ++pattern, ++path) {
    if (*pattern == "**") {
      for (auto rest = path;; ++rest) {
        if (Matches(pattern + 1, pattern_end, rest, path_end)) return true;
        if (rest == path_end || rest->front() == '.') return false;
      }
    }
    if (path == path_end || fnmatch(pattern->c_str(), path->c_str(), FNM_PERIOD) != 0) return false;
  }
  return path == path_end;
}

}  // namespace

// The files below a folder that match a pattern, in the order of their names.
class FileList::Walk {
 public:
  explicit Walk(const std::string& source) : source_(source) {
    fs::path root;
    bool in_pattern = false;
    for (const fs::path& part : fs::path(source)) {
      in_pattern |= IsPattern(part.string());
      if (in_pattern) {
        pattern_.push_back(part.string());
      } else {
        root /= part;
      }
    }
    if (pattern_.empty()) pattern_ = {"**", "*"};
    goes_deep_ = std::find(pattern_.begin(), pattern_.end(), "**") != pattern_.end();
    Enter(root);
  }

  // Nothing after the last.
  absl::StatusOr<std::optional<std::string>> Next() {
    while (!folders_.empty()) {
      Folder& folder = folders_.back();
      if (folder.entries.empty()) {
        folders_.pop_back();
        if (!names_.empty()) names_.pop_back();
        continue;
      }
      const Entry entry = std::move(folder.entries.back());
      folder.entries.pop_back();
      const fs::path path = folder.path / entry.name;
      names_.push_back(entry.name);
      if (entry.is_folder) {
        if (goes_deep_ || names_.size() < pattern_.size()) {
          Enter(path);
          continue;
        }
      } else if (Matches(pattern_.begin(), pattern_.end(), names_.begin(), names_.end())) {
        names_.pop_back();
        found_ = true;
        return path.string();
      }
      names_.pop_back();
    }
    if (found_) return std::nullopt;
    return absl::InvalidArgumentError(absl::StrCat("'", source_, "' names no file"));
  }

 private:
  struct Entry {
    std::string name;
    bool is_folder;
  };
  struct Folder {
    fs::path path;
    std::vector<Entry> entries;  // The next one last.
  };

  void Enter(const fs::path& path) {
    Folder& folder = folders_.emplace_back();
    folder.path = path;
    std::error_code error;
    for (fs::directory_iterator entry(path.empty() ? "." : path, error), end;
         !error && entry != end; entry.increment(error)) {
      std::error_code ignored;
      // A link to a folder may lead round in a circle: it isn't followed.
      const bool is_link = entry->is_symlink(ignored);
      const bool is_folder = entry->is_directory(ignored);
      if (is_folder && is_link) continue;
      folder.entries.push_back({entry->path().filename().string(), is_folder});
    }
    std::sort(folder.entries.begin(), folder.entries.end(),
              [](const Entry& a, const Entry& b) { return a.name > b.name; });
  }

  const std::string source_;
  Names pattern_;
  bool goes_deep_ = false;
  bool found_ = false;
  std::vector<Folder> folders_;
  Names names_;  // Of the folders that are entered, below the root.
};

FileList::FileList(std::vector<std::string> sources, std::istream& in)
    : sources_(std::move(sources)), in_(in) {}

FileList::~FileList() = default;

absl::StatusOr<std::optional<std::string>> FileList::Next() {
  for (;;) {
    if (file_) return std::exchange(file_, std::nullopt);
    if (walk_ != nullptr) {
      auto found = walk_->Next();
      if (!found.ok() || found->has_value()) return found;
      walk_.reset();
    }
    for (std::string line; lines_ != nullptr && std::getline(*lines_, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) return line;
    }
    lines_ = nullptr;
    list_.reset();
    if (next_source_ == sources_.size()) return std::nullopt;
    if (absl::Status status = OpenNext(); !status.ok()) return status;
  }
}

absl::Status FileList::OpenNext() {
  const std::string& source = sources_[next_source_++];
  std::error_code ignored;
  if (source == "-") {
    lines_ = &in_;
  } else if (source.front() == '@') {
    list_ = std::make_unique<std::ifstream>(source.substr(1));
    if (!*list_) {
      return absl::InvalidArgumentError(
          absl::StrCat("the list '", source.substr(1), "' can't be read"));
    }
    lines_ = list_.get();
  } else if (fs::is_directory(source, ignored) ||
             (IsPattern(source) && !fs::exists(source, ignored))) {
    walk_ = std::make_unique<Walk>(source);
  } else {
    file_ = source;
  }
  return absl::OkStatus();
}

std::optional<int64_t> CountFiles(const std::vector<std::string>& sources) {
  for (const std::string& source : sources) {
    // What comes from a pipe comes once.
    std::error_code ignored;
    const bool is_list = source.front() == '@';
    if (source == "-" || (is_list && !fs::is_regular_file(source.substr(1), ignored))) {
      return std::nullopt;
    }
  }
  std::istringstream nothing;
  FileList list(sources, nothing);
  for (int64_t count = 0;; ++count) {
    const auto file = list.Next();
    if (!file.ok()) return std::nullopt;
    if (!file->has_value()) return count;
  }
}

}  // namespace client
}  // namespace millrace
