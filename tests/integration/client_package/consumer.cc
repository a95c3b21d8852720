// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Uses the installed library: asks an address where nobody listens, and expects to be told so.
#include <iostream>

#include "absl/synchronization/mutex.h"
#include "client/client.h"

int main() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const auto client =
      millrace::Client::Connect("unix:/nowhere", {.connect_timeout = absl::ZeroDuration()});
  if (!client.ok()) {
    std::cerr << client.status() << "\n";
    return 1;
  }
  const auto stream = (*client)->OpenStream();
  stream->Send({.model = "any", .inputs = {millrace::Tensor::Of<float>("x", {1}, {1.0f})}})
      .IgnoreError();
  const absl::Status end = stream->Close();
  std::cout << end << "\n";
  return absl::IsUnavailable(end) ? 0 : 1;
}
