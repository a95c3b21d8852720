// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace millrace {

struct StatusPage {
  std::string html;
  std::string policy;  // Its Content-Security-Policy.
};

// The page that shows the status: one file (status_page.html, built in), whose script and style the
// policy allows by a number that is drawn anew for each answer; nothing else is allowed but to ask
// the server that the page came from. Thread-safe.
StatusPage MakeStatusPage();

}  // namespace millrace
