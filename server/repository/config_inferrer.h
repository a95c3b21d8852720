// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/inference/inspection.h"
#include "server/repository/model_directory.h"

namespace millrace {

// Gives models without config.pbtxt the one that their file tells, where it tells all: that of an
// AOTInductor package. Remembers what it found while the file stays the same. Thread-compatible.
class ConfigInferrer {
 public:
  // Inspects the file of a version, which is open; ends with CANCELLED once `given_up` is readable
  // (-1: never).
  using Inspect =
      std::function<absl::StatusOr<Inspection>(const ModelVersion& version, int fd, int given_up)>;

  explicit ConfigInferrer(Inspect inspect) : inspect_(std::move(inspect)) {}

  // Reads `directory` again with what the package of its newest version tells, where it lacks a
  // config and has such a package; its status says what is in the way. Leaves others as they are.
  // Blocks for as long as an inspection takes, which ends early where `given_up`, an eventfd, is
  // readable.
  void Complete(ModelDirectory& directory, int given_up = -1);

 private:
  struct Known {
    std::string stamp;
    absl::StatusOr<std::string> config;
  };

  absl::StatusOr<std::string> ConfigOf(const std::string& model, const ModelVersion& version,
                                       int given_up);

  const Inspect inspect_;
  std::map<std::string, Known> known_;  // By the path of the file.
};

}  // namespace millrace
