// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/stream_terms.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr size_t kMaxQuotedBytes = 64;

absl::Status Unexpected(absl::string_view key, absl::string_view text, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      "metadata '", key, "' is '", text.substr(0, kMaxQuotedBytes), "', expected ", expected));
}

// The value of `key`, if it came.
absl::StatusOr<std::optional<absl::string_view>> Find(const CallMetadata& metadata,
                                                      const char* key) {
  const auto [first, last] = metadata.equal_range(key);
  if (first == last) return std::nullopt;
  if (std::next(first) != last) {
    return absl::InvalidArgumentError(absl::StrCat(
        "metadata '", key, "' came ", std::distance(first, last), " times, expected it once"));
  }
  return absl::string_view(first->second.data(), first->second.size());
}

// Sets `*number` where the key came.
absl::Status ReadNumber(const CallMetadata& metadata, const char* key, int64_t most,
                        absl::string_view expected, int64_t* number) {
  MILLRACE_ASSIGN_OR_RETURN(const auto text, Find(metadata, key));
  if (!text) return absl::OkStatus();
  if (!absl::SimpleAtoi(*text, number) || *number < 1 || *number > most) {
    return Unexpected(key, *text, expected);
  }
  return absl::OkStatus();
}

constexpr char kNameKey[] = "millrace-stream-name";

bool IsName(absl::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           absl::string_view("._:/-").find(c) != absl::string_view::npos;
  });
}

template <typename Value>
using Name = std::pair<absl::string_view, Value>;

// The value that the key's word stands for, if the key came.
template <typename Value, size_t kCount>
absl::StatusOr<std::optional<Value>> ReadWord(const CallMetadata& metadata, const char* key,
                                              const Name<Value> (&names)[kCount]) {
  MILLRACE_ASSIGN_OR_RETURN(const auto text, Find(metadata, key));
  if (!text) return std::nullopt;
  std::string expected;
  for (size_t i = 0; i < kCount; ++i) {
    if (*text == names[i].first) return names[i].second;
    absl::StrAppend(&expected, i == 0 ? "" : i + 1 == kCount ? " or " : ", ", names[i].first);
  }
  return Unexpected(key, *text, expected);
}

constexpr Name<Overflow> kOverflows[] = {{"block", Overflow::kBlock},
                                         {"reject", Overflow::kReject},
                                         {"drop-oldest", Overflow::kDropOldest},
                                         {"latest", Overflow::kLatest}};
constexpr Name<AnswerOrder> kOrders[] = {{"request", AnswerOrder::kRequest},
                                         {"completion", AnswerOrder::kCompletion}};
constexpr Name<bool> kYesOrNo[] = {{"true", true}, {"false", false}};

}  // namespace

absl::StatusOr<StreamTerms> ReadStreamTerms(const CallMetadata& metadata,
                                            const StreamLimits& limits) {
  int64_t window = limits.default_window;
  int64_t weight = 1;
  int64_t max_age = 0;
  MILLRACE_RETURN_IF_ERROR(
      ReadNumber(metadata, "millrace-window", std::numeric_limits<int64_t>::max(),
                 absl::StrCat("a number from 1 to ", limits.max_window), &window));
  MILLRACE_RETURN_IF_ERROR(ReadNumber(metadata, "millrace-weight", Flow::kMostWeight,
                                      absl::StrCat("a number from 1 to ", Flow::kMostWeight),
                                      &weight));
  MILLRACE_RETURN_IF_ERROR(ReadNumber(metadata, "millrace-max-age",
                                      std::numeric_limits<int64_t>::max(),
                                      "a number of microseconds from 1 on", &max_age));
  MILLRACE_ASSIGN_OR_RETURN(const auto overflow,
                            ReadWord(metadata, "millrace-overflow", kOverflows));
  MILLRACE_ASSIGN_OR_RETURN(const auto order, ReadWord(metadata, "millrace-order", kOrders));
  MILLRACE_ASSIGN_OR_RETURN(const auto notice,
                            ReadWord(metadata, "millrace-drain-notice", kYesOrNo));
  MILLRACE_ASSIGN_OR_RETURN(const auto name, Find(metadata, kNameKey));
  if (name && !IsName(*name)) {
    return Unexpected(kNameKey, *name, "1 to 64 of letters, digits and . _ : / -");
  }

  StreamTerms terms;
  terms.window = static_cast<int>(std::min<int64_t>(window, limits.max_window));
  terms.weight = static_cast<int>(weight);
  terms.overflow = overflow;
  if (name) terms.name = std::string(*name);
  terms.order = order.value_or(AnswerOrder::kRequest);
  terms.wants_notice = notice.value_or(false);
  if (max_age > 0) terms.max_age = absl::Microseconds(max_age);
  const auto ends_on_error = metadata.find("triton_grpc_error");
  terms.ends_on_error = ends_on_error != metadata.end() && ends_on_error->second == "true";
  return terms;
}

}  // namespace millrace
