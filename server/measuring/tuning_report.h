// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/measuring/repository_tuner.h"

namespace millrace {

// The report for people: for each model what was chosen, and a table of the best of what was
// measured, then of what is oversubscribed.
std::string FormatReport(const TuningReport& report);

// The whole report as JSON; docs/tuning.md describes it.
std::string ReportJson(const TuningReport& report);

}  // namespace millrace
