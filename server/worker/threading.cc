// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/threading.h"

#include <ATen/Parallel.h>
#include <ATen/ops/ones.h>
#include <dlfcn.h>

#include <algorithm>

namespace millrace {
namespace {

// OpenMP is whichever runtime libtorch brought along, so it is found at run time, never linked.
// Levels of nesting that may be parallel: 0 makes every region serial, also one that an
// AOTInductor package has a number of threads baked into.
void SetParallelLevels(int levels) {
  using SetMaxActiveLevels = void (*)(int);
  if (void* const symbol = dlsym(RTLD_DEFAULT, "omp_set_max_active_levels")) {
    reinterpret_cast<SetMaxActiveLevels>(symbol)(levels);
  }
}

}  // namespace

void StaySingleThreaded(int inter_op_threads) {
  SetParallelLevels(0);
  at::set_num_threads(1);
  at::set_num_interop_threads(std::max(1, inter_op_threads));
}

void StartTeam(int threads) {
  SetParallelLevels(1);
  at::set_num_threads(std::max(1, threads));
  // Large enough that libtorch splits it, so that the team exists before the first batch.
  if (threads > 1) at::ones({int64_t{threads} << 16});
}

}  // namespace millrace
