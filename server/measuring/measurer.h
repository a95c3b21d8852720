// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/placement/placement.h"

namespace millrace {

// A way to run a model that may be found best.
using Candidate = MeasuredBest;

// What is sent to a model while it is measured.
struct Load {
  enum class Kind {
    kFullBatches,  // Requests of a full batch, so many that every replica always has the next one.
    kOneRequest,   // One request of one row at a time.
    kAtRandom,     // Requests of one row, `rate` a second, whatever becomes of the others.
  };
  Kind kind = Kind::kFullBatches;
  double rate = 0;
};

// What a run has found.
struct Trial {
  double rows_per_second = 0;
  absl::Duration p50 = {};  // Of the time from a request to its answer.
  absl::Duration p99 = {};
};

// Runs a model in different ways and says how fast it was. Confined to one thread.
class Measurer {
 public:
  virtual ~Measurer() = default;

  // Runs the model as `candidate` says under `load` for about `length`, longer where a batch takes
  // long. Blocks. An error where the model can't be run so.
  virtual absl::StatusOr<Trial> Run(const Candidate& candidate, const Load& load,
                                    absl::Duration length) = 0;

  // Only these will be run from now on: what others need may be given up. Gets ready for them, in
  // their order, as far as that has begun before `deadline`; the others take longer when they are
  // run. Blocks.
  virtual void Keep(absl::Span<const Candidate> candidates, absl::Time deadline) = 0;
};

}  // namespace millrace
