// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/unique_fd.h"

namespace millrace {

// What a worker process does to itself. Call from the main thread.

// Names the main thread, and with it the process.
void NameProcess(const char* name);

// Makes `output` the standard output and error, line by line.
void WriteTo(UniqueFd output);

// Has the kernel kill this process when its parent ends, and checks that the parent is
// `server_pid`. UNAVAILABLE where it isn't: then the server has already gone.
absl::Status DieWithServer(int server_pid);

// Keeps terminal and service signals from ending a worker while the server drains; the server
// ends its workers itself.
void IgnoreStopSignals();

// Makes this process a likelier victim than the server when memory runs out. Best effort.
void VolunteerForOomKiller();

// Leaves the background (SCHED_IDLE) for an equal share of the cores. Best effort: it takes
// RLIMIT_NICE, which the server sees to.
void ComeToForeground();

// Lets this process have at most `bytes` of private memory (RLIMIT_DATA), or as much as it was
// allowed before where that is less: what it asks for beyond fails. What that limit doesn't count
// (memory that is shared, or can't be written to any more) is bounded by the address space
// (RLIMIT_AS): what is mapped already, `bytes`, and `mapped` for files that will be. For good, and
// inherited by forks.
absl::Status LimitMemory(uint64_t bytes, uint64_t mapped = 0);

// Gives the system back what is allocated no more: loading and warming a model leaves memory free
// that forks would share, and copy as they write to it.
void ReturnFreeMemory();

// Bytes of private memory that count against LimitMemory().
uint64_t PrivateMemory();

// Closes every descriptor above the standard ones but `fds`, which become 3, 4, … in this order.
void KeepDescriptors(std::vector<UniqueFd*> fds);

// Has this process run on `cpus` alone; where that is empty, on those where it does. Call before
// threads start.
absl::Status PinTo(const std::vector<int>& cpus);

// Threads of this process, by /proc/self/task.
int ThreadCount();

// Forks twice, so that the grandchild becomes the child of the nearest subreaper (the server), and
// returns its pid. In the grandchild, once it has that parent, calls `body` and never returns.
// REQUIRES: this process has one thread.
absl::StatusOr<pid_t> ForkToSubreaper(absl::FunctionRef<void()> body);

// Runs `body` in a forked child and returns its status, whose message is cut to 4 KiB. INTERNAL
// where the child dies of it. What the child does to its memory and environment stays there, and
// nothing that it writes on stderr is seen.
// REQUIRES: this process has one thread.
absl::Status RunInChild(absl::FunctionRef<absl::Status()> body);

// The same for a `body` that returns a text; RESOURCE_EXHAUSTED where it is longer than a pipe
// holds, which is 64 KiB.
absl::StatusOr<std::string> AskChild(absl::FunctionRef<absl::StatusOr<std::string>()> body);

}  // namespace millrace
