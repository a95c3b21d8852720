// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace millrace {

// What a server shows of itself over TLS, and whom it trusts, as PEM.
struct ServerCertificate {
  std::string chain;  // Its own certificate first, then those that lead to its authority.
  std::string key;
  std::string client_authorities;  // Empty: clients need no certificate.
  std::string serial;              // Of its own certificate, in hexadecimal.
  absl::Time not_after;            // Its own certificate's.
};

// Checks that the texts are what they should be and belong together. INVALID_ARGUMENT says which
// is wrong, and never quotes any. An expired certificate is no error. Where clients need a
// certificate there are `client_authorities`, and an empty text is wrong.
absl::StatusOr<ServerCertificate> CheckCertificate(std::string chain, std::string key,
                                                   std::optional<std::string> client_authorities);

}  // namespace millrace
