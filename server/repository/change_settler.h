// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace millrace {

// Decides when a change of a model's files is complete: when nothing of them has changed for a
// while. Thread-compatible; knows no files.
class ChangeSettler {
 public:
  // By a model's name, what tells one state of its files from another.
  using Stamps = std::map<std::string, std::string>;

  // `known` is how things stand at first.
  ChangeSettler(absl::Duration settle_time, Stamps known)
      : settle_time_(settle_time), known_(std::move(known)) {}

  // Takes note of how things stand; returns the models that have come, changed or gone and have
  // stayed so for the settle time. Each change is returned once.
  std::vector<std::string> Look(const Stamps& stamps, absl::Time now);

  // When to look again, even though nobody tells of another change; InfiniteFuture() where no
  // change is going on.
  absl::Time next_look() const;

 private:
  struct Change {
    std::string stamp;  // Empty where the model has gone.
    absl::Time since;
  };

  const absl::Duration settle_time_;
  Stamps known_;
  std::map<std::string, Change> going_on_;
};

}  // namespace millrace
