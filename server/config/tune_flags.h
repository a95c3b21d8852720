// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>

#include "server/config/tune_config.h"

namespace millrace {

// Adds the subcommand `tune`, which is parsed into `config`.
CLI::App* AddTuneCommand(CLI::App& app, TuneConfig& config);

// What no flag of it can tell alone; throws CLI::ParseError.
void CheckTune(const TuneConfig& config);

}  // namespace millrace
