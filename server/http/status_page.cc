// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/status_page.h"

#include <cstdint>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace millrace {

// The file's bytes, in status_page_bytes.cc, which the build makes of it.
extern const char kStatusPageHtml[];

StatusPage MakeStatusPage() {
  std::random_device random;
  std::string nonce;
  for (int i = 0; i < 4; ++i) {
    absl::StrAppend(&nonce, absl::Hex(static_cast<uint32_t>(random()), absl::kZeroPad8));
  }
  return {.html = absl::StrReplaceAll(kStatusPageHtml, {{"{{NONCE}}", nonce}}),
          .policy = absl::StrCat("default-src 'none'; script-src 'nonce-", nonce,
                                 "'; style-src 'nonce-", nonce,
                                 "'; connect-src 'self'; img-src data:; base-uri 'none'; "
                                 "form-action 'none'; frame-ancestors 'none'")};
}

}  // namespace millrace
