// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/base/unique_fd.h"

namespace millrace {

// Shows one snapshot of the server to all who ask for it, and sends new ones to those who watch, as
// server-sent events (HTML, "Server-sent events") on connections that are handed over. One thread
// serves all viewers. Thread-safe.
//
// Invariants:
//  1. A snapshot is made at most once per interval, however many ask and watch, and none is made
//     while nobody does.
//  2. There are at most `most_viewers`. One that doesn't take an event for `patience` is dropped,
//     as is one that sends something.
class EventFeed {
 public:
  struct Options {
    size_t most_viewers = 16;
    absl::Duration interval = absl::Seconds(1);
    absl::Duration patience = absl::Seconds(5);
  };
  using Text = std::shared_ptr<const std::string>;

  // `snapshot` returns one line; it is called by one thread at a time, until the destructor ends.
  EventFeed(Options options, std::function<std::string()> snapshot);

  // Closes the viewers' connections.
  ~EventFeed();

  // The newest snapshot, made now where the last one is older than the interval. Blocks while
  // another thread makes it.
  Text Snapshot() ABSL_LOCKS_EXCLUDED(making_);

  // Takes a viewer's place. False where there is none; else either Watch() or Release() follows.
  bool Reserve() ABSL_LOCKS_EXCLUDED(mutex_);
  void Release() ABSL_LOCKS_EXCLUDED(mutex_);

  // Sends events on `socket`, on which the answer's header was sent, until the viewer goes. Never
  // blocks.
  void Watch(UniqueFd socket) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many places are taken.
  size_t viewers() const ABSL_LOCKS_EXCLUDED(mutex_);

  const Options& options() const { return options_; }

 private:
  // A viewer; the thread's own.
  struct Viewer {
    UniqueFd socket;
    Text event = nullptr;  // That is being sent; null: none.
    size_t sent = 0;       // Of it.
    absl::Time began = absl::InfinitePast();
    bool gone = false;
  };

  void Run() ABSL_LOCKS_EXCLUDED(mutex_, making_);
  // Begins to send an event, or waits for the last one to be taken. False where the viewer has to
  // go.
  bool Send(Viewer& viewer, const Text& event) const;
  // Sends what the connection takes. False where it is broken.
  static bool Flush(Viewer& viewer);
  void DropGone(std::vector<Viewer>& viewers) ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  const std::function<std::string()> snapshot_;
  const UniqueFd wake_;

  Mutex making_;
  Text latest_ ABSL_GUARDED_BY(making_);
  absl::Time made_ ABSL_GUARDED_BY(making_) = absl::InfinitePast();

  mutable Mutex mutex_;
  size_t places_taken_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<UniqueFd> arrived_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Thread thread_;  // Last: it uses all of the above.
};

}  // namespace millrace
