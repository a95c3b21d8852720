// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/time/time.h"

namespace millrace {

// A certificate that has signed itself, with its key, as PEM.
struct TestCertificate {
  std::string certificate;
  std::string key;
};

TestCertificate MakeTestCertificate(int serial, absl::Time not_after);

}  // namespace millrace
