// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/base/unique_fd.h"

namespace millrace {

// What a worker process writes to its standard output and error. Its first lines go to the log, and
// the last ones are kept for the day it dies. Thread-compatible.
class WorkerOutput {
 public:
  // The most lines that are logged as they come, that are kept, and bytes of a line.
  static constexpr int kMostLogged = 100;
  static constexpr size_t kMostKept = 20;
  static constexpr size_t kMostLineBytes = 512;

  // One that nobody writes to.
  WorkerOutput() = default;

  // `name` stands in the log. The descriptor is the worker's end.
  static absl::StatusOr<std::pair<WorkerOutput, UniqueFd>> Create(std::string name);

  // To be polled for input; -1 once every process that writes to it has ended.
  int fd() const { return fd_.get(); }

  // Takes what was written, at most some pages of it. Never blocks. False where there was nothing.
  bool Read();

  // Writes the lines that are kept to the log, in the name of an incident, and forgets them.
  void LogLast(absl::string_view incident);

 private:
  WorkerOutput(std::string name, UniqueFd fd) : name_(std::move(name)), fd_(std::move(fd)) {}

  void Take(absl::string_view text);
  void EndLine();

  std::string name_;
  UniqueFd fd_;
  std::string line_;  // As far as it has come.
  std::deque<std::string> last_;
  int logged_ = 0;
};

// A number by which a death is found in the log, e.g. "4f02a9c1".
std::string NewIncident();

}  // namespace millrace
