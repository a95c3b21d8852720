// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace millrace {

// Whoever takes something that models share, and waits where it is taken: a model's dispatcher.
class Claimant {
 public:
  virtual ~Claimant() = default;

  // What it was refused may have become free; it should try again. Called without locks held.
  virtual void TryAgain() = 0;
};

}  // namespace millrace
