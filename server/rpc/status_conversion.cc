// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_conversion.h"

#include <array>

#include "absl/strings/string_view.h"
#include "server/rpc/utf8.h"

namespace millrace {
namespace {

struct Row {
  absl::StatusCode inside;
  grpc::StatusCode wire;
};

constexpr std::array<Row, 17> kTable = {{
    {absl::StatusCode::kOk, grpc::StatusCode::OK},
    {absl::StatusCode::kCancelled, grpc::StatusCode::CANCELLED},
    {absl::StatusCode::kUnknown, grpc::StatusCode::UNKNOWN},
    {absl::StatusCode::kInvalidArgument, grpc::StatusCode::INVALID_ARGUMENT},
    {absl::StatusCode::kDeadlineExceeded, grpc::StatusCode::DEADLINE_EXCEEDED},
    {absl::StatusCode::kNotFound, grpc::StatusCode::NOT_FOUND},
    {absl::StatusCode::kAlreadyExists, grpc::StatusCode::ALREADY_EXISTS},
    {absl::StatusCode::kPermissionDenied, grpc::StatusCode::PERMISSION_DENIED},
    {absl::StatusCode::kResourceExhausted, grpc::StatusCode::RESOURCE_EXHAUSTED},
    {absl::StatusCode::kFailedPrecondition, grpc::StatusCode::FAILED_PRECONDITION},
    {absl::StatusCode::kAborted, grpc::StatusCode::ABORTED},
    {absl::StatusCode::kOutOfRange, grpc::StatusCode::OUT_OF_RANGE},
    {absl::StatusCode::kUnimplemented, grpc::StatusCode::UNIMPLEMENTED},
    {absl::StatusCode::kInternal, grpc::StatusCode::INTERNAL},
    {absl::StatusCode::kUnavailable, grpc::StatusCode::UNAVAILABLE},
    {absl::StatusCode::kDataLoss, grpc::StatusCode::DATA_LOSS},
    {absl::StatusCode::kUnauthenticated, grpc::StatusCode::UNAUTHENTICATED},
}};

constexpr size_t kMaxTrailerBytes = 3072;
constexpr absl::string_view kCut = "…";
constexpr size_t kCutTrailerBytes = 9;  // Three bytes, each written as %XX.

// What one byte takes in the trailer grpc-message, which is percent-encoded.
size_t TrailerBytes(char byte) { return byte >= ' ' && byte <= '~' && byte != '%' ? 1 : 3; }

// Cuts valid UTF-8 between two characters.
std::string Cut(std::string text) {
  size_t trailer = 0;
  size_t keep = 0;  // How much stays where "…" must follow.
  for (size_t at = 0; at < text.size();) {
    const size_t length = Utf8SequenceLength(absl::string_view(text).substr(at));
    if (trailer + kCutTrailerBytes <= kMaxTrailerBytes) keep = at;
    for (size_t i = 0; i < length; ++i) trailer += TrailerBytes(text[at + i]);
    if (trailer > kMaxTrailerBytes) return text.substr(0, keep).append(kCut.data(), kCut.size());
    at += length;
  }
  return text;
}

}  // namespace

grpc::StatusCode ToGrpc(absl::StatusCode code) {
  for (const Row& row : kTable) {
    if (row.inside == code) return row.wire;
  }
  return grpc::StatusCode::UNKNOWN;
}

absl::StatusCode FromGrpc(grpc::StatusCode code) {
  for (const Row& row : kTable) {
    if (row.wire == code) return row.inside;
  }
  return absl::StatusCode::kUnknown;
}

std::string WireMessage(const absl::Status& status) {
  if (status.message().empty()) return status.ok() ? "" : absl::StatusCodeToString(status.code());
  return Cut(ToValidUtf8(status.message().substr(0, kMaxTrailerBytes + 1)));
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(ToGrpc(status.code()), WireMessage(status));
}

}  // namespace millrace
