// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "server/worker/engine.h"

namespace millrace {

// Opens an AOTInductor package (`.pt2`) that was unpacked into `command.folder` and checks, before
// any of its code is loaded, the device and the CPU instruction set that it was compiled for.
// `command` must outlive the engine, and the folder's files must stay until Prepare() has returned.
// An error says what is wrong.
//
// A package checks nothing itself unless it is told to before its first run. The count of its
// inputs is checked here against its call specification; types and shapes by its own checks, which
// are always on where the config leaves a dimension open. They aren't where all is fixed, because
// most packages refuse batches of one row then, though they run them
// (aot_inductor.check_lowerbound): there the caller tries CheckInputs() in a process of its own,
// and the config is trusted after.
absl::StatusOr<std::unique_ptr<Engine>> OpenAotInductor(const LoadCommand& command);

}  // namespace millrace
