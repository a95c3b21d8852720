// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace millrace {

// What a row of a model costs, as measured lately.
struct StageCost {
  absl::Duration prepare;  // Median of one thread's time in the transform stage; zero without one.
  absl::Duration execute;  // Median of the cores' time on its replicas; zero on GPUs.
  double rows = 1;         // How many came lately; only the models' proportion counts.
};

// How the transform stage and the CPU replicas share the budget's cores.
struct CoreSplit {
  int transform = 1;  // So many transform workers may work at a time,
  int replicas = 1;   // and so many cores' worth of batches may run.

  friend bool operator==(const CoreSplit&, const CoreSplit&) = default;
};

// Decides how the `slots` cores of the budget are shared, where `now` is how they are, and
// `transform_busy` how many of them the transform stage has used lately.
//
// Invariants:
//  1. The transform stage's share is its part of the work: with it neither stage waits for the
//     other when both always have something to do. It gets its share rounded up, and the replicas
//     get what is left rounded up: neither starves, and at most two cores are promised to both.
//  2. The replicas give up only cores that the transform stage uses: without pictures they have
//     all.
//  3. Each gets at least one, and at most all.
//  4. What is measured wavers; a share that lies within a tenth of a core of what `now` stands for
//     changes nothing. Where nothing is measured, nothing changes.
CoreSplit SplitCores(int slots, absl::Span<const StageCost> costs, double transform_busy,
                     const CoreSplit& now);

}  // namespace millrace
