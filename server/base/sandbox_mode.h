// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace millrace {

// Whether worker processes are shut in before they open a model, and what becomes of a part that
// the kernel refuses.
enum class SandboxMode {
  kOff,
  kOn,        // A refused part is left out, with a warning.
  kRequired,  // A refused part keeps the model from being served.
};

}  // namespace millrace
