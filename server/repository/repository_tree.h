// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/repository/change_settler.h"

namespace millrace {

// How the files of model repositories stand at a moment.
struct RepositoryTree {
  // Of every model: names, inodes, sizes and times of the files in its directory and in those of
  // its versions.
  ChangeSettler::Stamps stamps;
  // Where something changes when one of these does: the directories themselves, and those that hold
  // a link on the way to one of them or to a file. So a link that is swapped is noticed, too, as
  // Kubernetes does with `..data`.
  std::set<std::string> directories;
};

// Reads how `repositories` stand; opens no file. An error where one can't be listed, as when a
// network's file system is away. Blocks on the disk.
absl::StatusOr<RepositoryTree> ReadRepositoryTree(absl::Span<const std::string> repositories);

}  // namespace millrace
