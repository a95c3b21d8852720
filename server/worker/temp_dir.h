// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace millrace {

// A private folder that is removed with everything in it when this object goes. While it exists,
// the environment's TMPDIR names it. For one at a time, in a single-threaded process.
class TempDir {
 public:
  static absl::StatusOr<std::unique_ptr<TempDir>> Create();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

 private:
  TempDir(std::string path, std::string outer, bool had_outer)
      : path_(std::move(path)), outer_(std::move(outer)), had_outer_(had_outer) {}

  const std::string path_;
  const std::string outer_;  // What TMPDIR was before.
  const bool had_outer_;
};

}  // namespace millrace
