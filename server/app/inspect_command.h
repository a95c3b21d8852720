// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/config/flags.h"
#include "server/config/inspect_config.h"

namespace millrace {

// Carries out the command `inspect`: finds out about a model, writes it into a repository where
// that is asked for, and returns what to print. The code is 0 where the model can be served, 1
// where the command can't be carried out as it stands, and 3 with the reason where the model can't
// be served. Blocks until it is done.
ExitNow RunInspectCommand(const InspectConfig& config);

}  // namespace millrace
