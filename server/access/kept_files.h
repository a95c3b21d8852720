// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace millrace {

// Files that are read again when they have changed, for as long as they change to something good.
// Whoever replaces several of them one by one is given until the next look to be done. Confined to
// one thread at a time.
class KeptFiles {
 public:
  // Makes use of the files' texts, in their order; an error leaves what is in use.
  using Use = std::function<absl::Status(std::vector<std::string> texts)>;

  // `what` names the files in the log: "the certificate".
  KeptFiles(std::string what, std::vector<std::string> paths, size_t most_bytes, Use use);

  // Reads them for the first time. An error names the file, or is that of `use`.
  absl::Status Read();

  // Reads them again at once, changed or not. An error names the file, or is that of `use`, and
  // what is in use stays.
  absl::Status Reread();

  // Reads them again where one has changed. What can't be used is told to the log once, when it
  // has stayed so since the last look.
  void Look();

 private:
  std::string Stamp() const;
  absl::Status ReadAll();

  const std::string what_;
  const std::vector<std::string> paths_;
  const size_t most_bytes_;
  const Use use_;
  std::string used_;   // The stamp of what is in use.
  std::string tried_;  // The stamp of what could not be used.
  bool told_ = false;
};

}  // namespace millrace
