// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/support/string_ref.h"
#include "server/dispatch/flow.h"
#include "server/ordering/response_sequencer.h"
#include "server/rpc/stream_limits.h"

namespace millrace {

// What a stream asks for in its metadata.
struct StreamTerms {
  int window = 1;
  int weight = 1;
  std::optional<Overflow> overflow = {};  // Nullopt: as each model's configuration says.
  AnswerOrder order = AnswerOrder::kRequest;
  absl::Duration max_age = absl::InfiniteDuration();
  bool ends_on_error = false;
  bool wants_notice = false;  // Of a drain, before it is done.
  std::string name = {};      // Empty: none.
};

using CallMetadata = std::multimap<grpc::string_ref, grpc::string_ref>;

// Reads the metadata of a stream:
//  millrace-window    a number from 1 on; more than `limits.max_window` is cut to that
//  millrace-weight    a number from 1 to 100
//  millrace-overflow  block, reject, drop-oldest or latest
//  millrace-order     request or completion
//  millrace-max-age   microseconds, from 1 on
//  millrace-stream-name  by what name metrics show it: 1 to 64 of letters, digits and . _ : / -
//  millrace-drain-notice  true or false: tell the client when the stream is to end
//  triton_grpc_error  true: the first error ends the stream
// INVALID_ARGUMENT names the key, what came and what was expected; it is also the answer to a key
// of ours that comes twice.
absl::StatusOr<StreamTerms> ReadStreamTerms(const CallMetadata& metadata,
                                            const StreamLimits& limits);

}  // namespace millrace
