// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/retry_info.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "server/rpc/wire_writer.h"

namespace millrace {
namespace {

// The fields of the messages.
constexpr uint32_t kStatusCode = 1;
constexpr uint32_t kStatusMessage = 2;
constexpr uint32_t kStatusDetails = 3;
constexpr uint32_t kAnyTypeUrl = 1;
constexpr uint32_t kAnyValue = 2;
constexpr uint32_t kRetryDelay = 1;
constexpr uint32_t kDurationSeconds = 1;
constexpr uint32_t kDurationNanos = 2;

constexpr char kRetryInfoType[] = "type.googleapis.com/google.rpc.RetryInfo";

absl::Duration Expressible(absl::Duration delay) {
  return std::clamp(delay, absl::ZeroDuration(),
                    absl::Milliseconds(std::numeric_limits<int32_t>::max()));
}

template <typename Out>
void WriteStatus(Out& out, const grpc::Status& status, absl::Duration delay) {
  const int64_t nanos = absl::ToInt64Nanoseconds(delay);
  WriteVarintField(out, kStatusCode, static_cast<uint64_t>(status.error_code()));
  WriteText(out, kStatusMessage, status.error_message());
  WriteMessage(out, kStatusDetails, [&](auto& any) {
    WriteText(any, kAnyTypeUrl, kRetryInfoType);
    WriteMessage(any, kAnyValue, [&](auto& retry_info) {
      WriteMessage(retry_info, kRetryDelay, [&](auto& duration) {
        WriteVarintField(duration, kDurationSeconds, static_cast<uint64_t>(nanos / 1'000'000'000));
        WriteVarintField(duration, kDurationNanos, static_cast<uint64_t>(nanos % 1'000'000'000));
      });
    });
  });
}

}  // namespace

std::string RetryPushback(absl::Duration delay) {
  return std::to_string(
      absl::ToInt64Milliseconds(absl::Ceil(Expressible(delay), absl::Milliseconds(1))));
}

grpc::Status WithRetryInfo(const grpc::Status& status, absl::Duration delay) {
  WireSize size;
  WriteStatus(size, status, Expressible(delay));
  std::string details(size.size(), '\0');
  WireWriter out(reinterpret_cast<uint8_t*>(details.data()));
  WriteStatus(out, status, Expressible(delay));
  return grpc::Status(status.error_code(), status.error_message(), details);
}

}  // namespace millrace
