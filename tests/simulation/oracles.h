// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "tests/simulation/batch_time.h"
#include "tests/simulation/journal.h"

namespace millrace {

// What other schedulers would have made of the same requests, to compare ours with. They know how
// long every batch takes and that nobody disturbs them; a request has one row.
//
// Both return the entries with other answers. REQUIRES: `entries` are in the order of `sent`.

// A model's replicas, for an oracle.
struct OracleServer {
  int replicas = 1;
  int64_t max_batch_size = 32;
  std::vector<BatchTime> shapes = {BatchTime{}};
};

// Earliest deadline first, from a single queue of one shape: a free replica takes those whose
// deadlines are nearest. Whoever can't be in time even in a batch of his own is given up. A full
// batch may be too slow for its most urgent members: what then, is told here.
enum class TooSlowForTheFirst {
  kCutTheBatch,  // So that they make it.
  kGiveThemUp,
  kLoseTheFewer,  // Whichever of these costs fewer of those who are waiting.
};
std::vector<Entry> EarliestDeadlineFirst(const std::vector<Entry>& entries,
                                         const OracleServer& server, TooSlowForTheFirst then);

// First come, first served, where a batch ends at the first request of another shape, as a queue
// that looks only at its head does it.
std::vector<Entry> HeadOfLineBatching(const std::vector<Entry>& entries,
                                      const OracleServer& server);

}  // namespace millrace
