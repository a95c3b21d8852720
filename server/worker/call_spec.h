// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

// The tensors of an AOTInductor package's inputs or outputs, in its order, from `text`, a
// serialised torch.utils._pytree.TreeSpec: a name per tensor, "" where it has none (what isn't in
// a dict). INTERNAL where the text can't be
// read.
absl::StatusOr<std::vector<std::string>> TensorsOfCallSpec(const std::string& text);

}  // namespace millrace
