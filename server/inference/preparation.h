// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/functional/any_invocable.h"

namespace millrace {

// Where requests wait that need work before they may join a batch, e.g. pictures that are decoded.
// Thread-safe.
class PreparationSource {
 public:
  virtual ~PreparationSource() = default;

  // Takes the piece of work whose turn it is, to be run once, on any thread, soon; empty where
  // there is none.
  virtual absl::AnyInvocable<void()> NextPreparation() = 0;
};

// Who does that work. Thread-safe.
class Preparers {
 public:
  virtual ~Preparers() = default;

  // Says that `source` has work. Never blocks, and doesn't do the work itself.
  virtual void WorkWaits(std::shared_ptr<PreparationSource> source) = 0;
};

}  // namespace millrace
