// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "server/hardware/hardware.h"
#include "server/measuring/candidates.h"
#include "server/repository/model_directory.h"
#include "server/repository/model_settings.h"

namespace millrace {

// In what ways a version of a model may be run on this machine: with which of its files, in BF16
// where the CPU computes it, with channels last where an input has four dimensions, as far as the
// configuration leaves that open. FAILED_PRECONDITION where there is nothing to choose: where it
// runs on GPUs, or in several groups.
absl::StatusOr<TuningSpace> TuningSpaceOf(const ModelSettings& settings,
                                          const ModelVersion& version, const Hardware& hardware);

}  // namespace millrace
