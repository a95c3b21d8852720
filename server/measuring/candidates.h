// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/measuring/measurer.h"

namespace millrace {

// In what ways a model may be run here.
struct TuningSpace {
  int cores = 1;  // That may be busy at a time: the budget, a fraction rounded up.
  std::optional<int> replicas = {};  // Where the configuration says them.
  std::optional<int> threads = {};
  int64_t max_batch_size = 0;
  bool varies_waiting = true;             // Teams are tried with active waiting, too.
  std::vector<ExecutionMode> modes = {};  // At least one, all of them with passive waiting.
};

// The ways to lay a model out on the cores, run as `mode` says: replicas × threads, where threads
// are 1, 2, 4, … and all cores, and replicas as many as fit, and the powers of two below. What the
// configuration says is not varied. The first is what runs without any plan.
std::vector<Candidate> Layouts(const TuningSpace& space, const ExecutionMode& mode);

// Each of `layouts` with each batch size: the most, and the powers of two below. The first layout's
// most comes first.
std::vector<Candidate> WithBatchSizes(const std::vector<Candidate>& layouts,
                                      int64_t max_batch_size);

// Each of `layouts`, and those of several threads also with active waiting.
std::vector<Candidate> WithWaiting(const std::vector<Candidate>& layouts);

// Layouts of more threads than there are cores, to show what they cost: one replica, and as many as
// there are cores, of 1, 2, 4, 8 and 16 threads.
std::vector<Candidate> Oversubscribed(const TuningSpace& space, const ExecutionMode& mode);

// How a candidate is named in tables and in the log: replicas, threads, the most rows of a batch
// and how it is run, as in "2 x 1, batches of 8, aotinductor bf16".
std::string NameOf(const Candidate& candidate, int64_t max_batch_size);

}  // namespace millrace
