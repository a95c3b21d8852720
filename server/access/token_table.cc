// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/token_table.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/status.h"

namespace millrace {
namespace {

absl::Status Unexpected(int line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, " ", what));
}

absl::StatusOr<uint32_t> ParseClasses(absl::string_view text, int line) {
  uint32_t classes = 0;
  for (const absl::string_view name : absl::StrSplit(text, ',')) {
    std::optional<MethodClass> found;
    for (const MethodClass each : {MethodClass::kInfer, MethodClass::kRead, MethodClass::kAdmin}) {
      if (name == NameOf(each)) found = each;
    }
    if (!found) {
      // What came isn't shown: whoever forgets the class has a token here.
      return Unexpected(line,
                        "begins with no class; expected infer, read and admin, those of them "
                        "that the token is good for, with commas between them");
    }
    classes |= BitOf(*found);
  }
  return classes;
}

absl::StatusOr<TokenHash> ParseHash(absl::string_view text, int line) {
  TokenHash hash;
  if (text.size() != 2 * hash.size() || !std::all_of(text.begin(), text.end(), [](unsigned char c) {
        return std::isxdigit(c) != 0;
      })) {
    return Unexpected(line, absl::StrCat("has no SHA-256 after the classes, but ", text.size(),
                                         " characters; expected 64 hexadecimal digits, as "
                                         "`printf %s \"$TOKEN\" | sha256sum` prints"));
  }
  const std::string bytes = absl::HexStringToBytes(text);
  std::copy(bytes.begin(), bytes.end(), hash.begin());
  return hash;
}

}  // namespace

TokenHash HashOf(absl::string_view token) {
  TokenHash hash;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), hash.data());
  return hash;
}

absl::StatusOr<TokenTable> TokenTable::Parse(absl::string_view text) {
  TokenTable table;
  int line = 0;
  for (const absl::string_view each : absl::StrSplit(text, '\n')) {
    ++line;
    const std::vector<absl::string_view> words =
        absl::StrSplit(each, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty() || words.front().front() == '#') continue;
    Token token;
    MILLRACE_ASSIGN_OR_RETURN(token.classes, ParseClasses(words[0], line));
    MILLRACE_ASSIGN_OR_RETURN(token.hash,
                              ParseHash(words.size() > 1 ? words[1] : absl::string_view(), line));
    for (const Token& other : table.tokens_) {
      if (other.hash == token.hash) return Unexpected(line, "repeats the SHA-256 of another line");
    }
    table.tokens_.push_back(token);
  }
  return table;
}

uint32_t TokenTable::ClassesOf(absl::string_view token) const {
  if (token.empty() || token.size() > kMostTokenBytes) return 0;
  const TokenHash hash = HashOf(token);
  uint32_t classes = 0;
  for (const Token& each : tokens_) {
    const auto equal =
        static_cast<uint32_t>(CRYPTO_memcmp(each.hash.data(), hash.data(), hash.size()) == 0);
    classes |= each.classes & (~equal + 1);  // All bits where they are equal, else none.
  }
  return classes;
}

}  // namespace millrace
