// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/thread.h"
#include "server/base/unique_fd.h"
#include "server/repository/change_settler.h"
#include "server/repository/repository_tree.h"

namespace millrace {

// Whether a directory is on a file system of a network.
bool IsOnRemoteFileSystem(const std::string& directory);

// Watches model repositories for models that come, change or go, on a thread of its own. The kernel
// tells it (inotify), or where the kernel can't, as with file systems on a network, it looks again
// from time to time.
class ModelWatcher {
 public:
  struct Options {
    std::vector<std::string> repositories;
    absl::Duration settle_time;    // So long nothing of a model must have changed.
    absl::Duration poll_interval;  // Where it has to look again from time to time.
    // Whether a directory's changes can be made where this kernel doesn't see them.
    std::function<bool(const std::string& directory)> is_remote = IsOnRemoteFileSystem;
  };
  // Names of models that have settled in a new state. Called on the watcher's thread.
  using OnSettled = std::function<void(const std::vector<std::string>& models)>;

  // Takes how things stand now for known, and starts. An error where a repository can't be listed.
  static absl::StatusOr<std::unique_ptr<ModelWatcher>> Start(Options options, Clock& clock,
                                                             OnSettled on_settled);

  // Joins the thread.
  ~ModelWatcher();

  // Has it look again at once. Thread-safe, never blocks.
  void Poke();

  // Whether it looks again from time to time, since not all changes are told.
  bool polls() const { return polls_; }

 private:
  ModelWatcher(Options options, Clock& clock, OnSettled on_settled);

  // Has the kernel tell of changes in `directories`, and in no others; where it can't, polls. True
  // where it tells of some that it didn't tell of before.
  bool Follow(const std::set<std::string>& directories);
  void Watch();
  void Look();
  // Sleeps until something may have changed. False when it is to end.
  bool WaitForChange();

  const Options options_;
  Clock& clock_;
  const OnSettled on_settled_;
  const UniqueFd stop_event_;
  const UniqueFd poke_event_;
  UniqueFd inotify_;
  std::set<int> watches_;
  bool polls_ = false;
  bool unreadable_ = false;  // The last look failed.
  std::unique_ptr<ChangeSettler> settler_;
  std::unique_ptr<Thread> thread_;  // Last: it uses all of the above.
};

}  // namespace millrace
