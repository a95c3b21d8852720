// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/stream.h"

#include <utility>

#include "client/stream_call.h"

namespace millrace {
inline namespace client {

Stream::Stream(std::unique_ptr<Call> call) : call_(std::move(call)) {}
Stream::~Stream() = default;

absl::Status Stream::Send(Request request) { return call_->Send(std::move(request)); }
std::optional<Answer> Stream::Next() { return call_->Next(); }
absl::Status Stream::Close() { return call_->Close(); }
void Stream::Cancel() { call_->Cancel(); }

}  // namespace client
}  // namespace millrace
