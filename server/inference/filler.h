// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/inference/parameter.h"

namespace millrace {

// How a request writes itself into rows of a batch. Kept until the request is answered, so that a
// batch can be filled again. Fill() is const and may be called by different threads in turn.
class Filler {
 public:
  virtual ~Filler() = default;

  // Whether every row must be prepared before it can be filled.
  virtual bool needs_preparation() const { return false; }

  // Does for one row what takes long, once. Different rows may be prepared by different threads at
  // once. An error is the request's answer.
  virtual absl::Status Prepare(int64_t /*row*/) { return absl::OkStatus(); }

  // Writes the request's rows [first_row, first_row + rows) of every input: `areas[i]` is the
  // place of those rows of the model's input i, exactly as long as they are. Takes a bounded time
  // and never blocks. An error is the request's answer.
  virtual absl::Status Fill(int64_t first_row, int64_t rows,
                            absl::Span<const absl::Span<std::byte>> areas) const = 0;

  // A hash by which the same payload is known again in this process. A sample of a large one is
  // enough: it takes microseconds.
  virtual uint64_t Fingerprint() const = 0;

  // Adds what the client should know of its inputs to the answer. Called once all is prepared.
  virtual void Annotate(Parameters& /*parameters*/) const {}
};

}  // namespace millrace
