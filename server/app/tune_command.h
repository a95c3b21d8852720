// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>

#include "server/config/flags.h"
#include "server/config/tune_config.h"

namespace millrace {

// Carries out the command `tune`: measures models, writes the plan and what else is asked for, and
// returns what to print. The code is 0 where a plan was found for at least one model, 1 where the
// command can't be carried out as it stands, and 3 where no model could be measured. How far it is
// goes to `progress`: a line that is renewed on a terminal, else a line now and then. Blocks until
// it is done.
ExitNow RunTuneCommand(const TuneConfig& config, std::ostream& progress, bool is_terminal);

}  // namespace millrace
