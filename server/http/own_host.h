// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"

namespace millrace {

// Whether the value of a Host header can't be the name of a stranger's web page. Such a page could
// have its own name lead to this server's address (DNS rebinding), and then read what is for those
// who reach the server. Addresses, names without a dot, and names under .internal, .local,
// .localhost, .svc or .cluster.local are given out by no public name server.
bool IsOwnHost(absl::string_view host);

}  // namespace millrace
