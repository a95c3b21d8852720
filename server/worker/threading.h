// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace millrace {

// Settings of libtorch's and OpenMP's threads in this process.

// Keeps this process single-threaded, whatever a model was built for: parallel regions run
// serially until StartTeam(). Call before the first run of anything.
void StaySingleThreaded(int inter_op_threads);

// Allows teams again and starts one of `threads`, which inherit this thread's cores. Call once,
// after the fork and after pinning.
void StartTeam(int threads);

}  // namespace millrace
