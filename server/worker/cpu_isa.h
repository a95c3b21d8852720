// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

namespace millrace {

// Checks that a machine whose `/proc/cpuinfo` reads `cpuinfo` has the instruction set that an
// AOTInductor package was compiled for: `isa` as its metadata spells it ("AVX512 AMX_TILE").
// FAILED_PRECONDITION names what is missing; running the package would be an illegal instruction.
absl::Status CheckCpuIsa(const std::string& isa, const std::string& cpuinfo);

}  // namespace millrace
