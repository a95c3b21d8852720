// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/number_file.h"

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "server/hardware/text_file.h"

namespace millrace {

std::optional<int64_t> ReadNumber(const std::filesystem::path& path) {
  int64_t number = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadTextFile(path).value_or("")), &number)) {
    return std::nullopt;
  }
  return number;
}

std::optional<int64_t> ReadNumberAfter(absl::string_view key, const std::filesystem::path& path) {
  const std::string text = ReadTextFile(path).value_or("");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(": \t"), absl::SkipEmpty());
    int64_t number = 0;
    if (words.size() >= 2 && words[0] == key && absl::SimpleAtoi(words[1], &number)) return number;
  }
  return std::nullopt;
}

}  // namespace millrace
