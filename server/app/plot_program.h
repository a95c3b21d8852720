// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {

// Draws the report of a tuning: plot_tuning.py, which is installed with this program, run by a
// Python that has matplotlib. Thread-compatible.
class PlotProgram {
 public:
  // Finds both: the Python of MILLRACE_PYTHON, of a .venv above this program, or of the PATH.
  // FAILED_PRECONDITION says what is missing. Blocks for as long as Python takes to import it.
  static absl::StatusOr<PlotProgram> Find();

  // Draws a report in JSON into a PNG file. Blocks.
  absl::Status Draw(const std::string& report, const std::string& png) const;

 private:
  PlotProgram(std::string python, std::string script)
      : python_(std::move(python)), script_(std::move(script)) {}

  std::string python_;
  std::string script_;
};

}  // namespace millrace
