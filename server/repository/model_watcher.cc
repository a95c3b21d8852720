// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_watcher.h"

#include <sys/inotify.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/event_fd.h"
#include "server/base/log.h"
#include "server/base/poll.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr uint32_t kEvents = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE |
                             IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

// File systems whose changes can be made elsewhere, where this kernel doesn't see them: NFS, SMB
// and CIFS, FUSE and virtiofs, 9P, AFS, Ceph, Coda, Lustre, GPFS, OCFS2, GFS2. By the f_type of
// statfs(2).
constexpr uint32_t kRemoteTypes[] = {0x6969,     0x517b,     0xff534d42, 0xfe534d42, 0x65735546,
                                     0x01021997, 0x5346414f, 0x6b414653, 0x00c36400, 0x73757245,
                                     0x0bd00bd0, 0x47504653, 0x7461636f, 0x01161970};

void Drain(int fd) {
  char buffer[4096];
  while (read(fd, buffer, sizeof(buffer)) > 0) {
  }
}

}  // namespace

bool IsOnRemoteFileSystem(const std::string& directory) {
  struct statfs system = {};
  if (statfs(directory.c_str(), &system) != 0) return false;
  const auto type = static_cast<uint32_t>(system.f_type);
  return std::find(std::begin(kRemoteTypes), std::end(kRemoteTypes), type) !=
         std::end(kRemoteTypes);
}

absl::StatusOr<std::unique_ptr<ModelWatcher>> ModelWatcher::Start(Options options, Clock& clock,
                                                                  OnSettled on_settled) {
  std::unique_ptr<ModelWatcher> watcher(
      new ModelWatcher(std::move(options), clock, std::move(on_settled)));
  // What is made between a look and the watch on its directory would stay unseen.
  RepositoryTree tree;
  do {
    MILLRACE_ASSIGN_OR_RETURN(tree, ReadRepositoryTree(watcher->options_.repositories));
  } while (watcher->Follow(tree.directories));
  watcher->settler_ =
      std::make_unique<ChangeSettler>(watcher->options_.settle_time, std::move(tree.stamps));
  watcher->thread_ = std::make_unique<Thread>("watcher", [raw = watcher.get()] { raw->Watch(); });
  return watcher;
}

ModelWatcher::ModelWatcher(Options options, Clock& clock, OnSettled on_settled)
    : options_(std::move(options)),
      clock_(clock),
      on_settled_(std::move(on_settled)),
      stop_event_(MakeEvent()),
      poke_event_(MakeEvent()),
      inotify_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)),
      polls_(!inotify_.valid()) {
  MILLRACE_CHECK(stop_event_.valid() && poke_event_.valid(),
                 "The process has run out of file descriptors.");
}

ModelWatcher::~ModelWatcher() { SignalEvent(stop_event_.get()); }

void ModelWatcher::Poke() { SignalEvent(poke_event_.get()); }

bool ModelWatcher::Follow(const std::set<std::string>& directories) {
  std::string why;
  std::set<int> watches;
  for (const std::string& directory : directories) {
    if (options_.is_remote(directory)) {
      why = absl::StrCat(directory, " is on a file system of a network");
    }
    // The same directory has the same number again.
    const int watch = inotify_add_watch(inotify_.get(), directory.c_str(), kEvents);
    if (watch >= 0) watches.insert(watch);
    if (watch < 0 && errno != ENOENT && errno != ENOTDIR) {
      why = absl::StrCat(directory, " can't be watched: ", std::strerror(errno));
    }
  }
  if (!why.empty() && !polls_) {
    LogInfo("models are looked for every ", absl::FormatDuration(options_.poll_interval), ": ",
            why);
    polls_ = true;
  }
  const bool more =
      !std::includes(watches_.begin(), watches_.end(), watches.begin(), watches.end());
  for (const int watch : watches_) {
    if (watches.count(watch) == 0) inotify_rm_watch(inotify_.get(), watch);
  }
  watches_ = std::move(watches);
  return more;
}

void ModelWatcher::Watch() {
  while (WaitForChange()) Look();
}

void ModelWatcher::Look() {
  absl::StatusOr<RepositoryTree> tree = absl::UnknownError("");
  do {
    tree = ReadRepositoryTree(options_.repositories);
  } while (tree.ok() && Follow(tree->directories));
  if (!tree.ok()) {  // What can't be read has not gone: everything stays as it is.
    if (!std::exchange(unreadable_, true)) {
      LogWarning("models stay as they are, since ", std::string(tree.status().message()));
    }
    return;
  }
  unreadable_ = false;
  const std::vector<std::string> settled = settler_->Look(tree->stamps, clock_.Now());
  if (!settled.empty()) on_settled_(settled);
}

bool ModelWatcher::WaitForChange() {
  const bool polls = polls_ || unreadable_;
  const absl::Duration sleep = std::min(settler_->next_look() - clock_.Now(),
                                        polls ? options_.poll_interval : absl::InfiniteDuration());
  pollfd entries[] = {{.fd = inotify_.get(), .events = POLLIN, .revents = 0},
                      {.fd = stop_event_.get(), .events = POLLIN, .revents = 0},
                      {.fd = poke_event_.get(), .events = POLLIN, .revents = 0}};
  Poll(absl::MakeSpan(entries), std::max(sleep, absl::ZeroDuration()));
  if (entries[0].revents != 0) Drain(inotify_.get());
  if (entries[2].revents != 0) ClearEvent(poke_event_.get());
  return entries[1].revents == 0;
}

}  // namespace millrace
