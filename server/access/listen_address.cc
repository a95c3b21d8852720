// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/listen_address.h"

#include "absl/strings/str_cat.h"

namespace millrace {

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text) {
  const size_t mark = text.rfind('?');
  if (mark == absl::string_view::npos || text.find('=', mark) == absl::string_view::npos) {
    return ListenAddress{.address = std::string(text)};
  }
  const absl::string_view option = text.substr(mark + 1);
  if (option != "guard=on" && option != "guard=off") {
    return absl::InvalidArgumentError(
        absl::StrCat("'", option, "' is no option of an address; expected guard=on or guard=off"));
  }
  return ListenAddress{.address = std::string(text.substr(0, mark)), .guard = option == "guard=on"};
}

}  // namespace millrace
