// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace millrace {

// Reads the kernel's list format, such as "0-3,8,10-11", into ascending CPU numbers. Empty when
// the text is empty or no such list.
std::vector<int> ParseCpuList(absl::string_view text);

// Writes ascending CPU numbers in the same format.
std::string FormatCpuList(absl::Span<const int> cpus);

}  // namespace millrace
