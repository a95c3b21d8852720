// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/model.h"

namespace millrace {

// Whether rows may share a batch: runs distinct rows alone and together, on the declared samples
// where there are some and on random values, and compares. FAILED_PRECONDITION where floating-point
// results differ by more than their data type explains, with every seed, and do so again when
// repeated; the message says where. Any other error means that the model can't be judged so: it
// raises on such values, isn't the same twice, or differs in integers, which a rounding can flip.
// REQUIRES: the model was warmed up, on the CPU, for batches of more than one row.
absl::Status CheckRowsAreIndependent(const LoadCommand& command, Model& model);

}  // namespace millrace
