// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "server/inference/data_type.h"
#include "server/inference/response.h"

namespace millrace {

// The names of an output's classes, by index.
using Labels = std::vector<std::string>;

// What a client wants in place of an output.
struct Classes {
  int64_t most = 0;                      // The best so many; 0: the output itself.
  std::shared_ptr<const Labels> labels;  // Null: there are none.
};

// Whether outputs of this type can be classified.
bool CanBeClassified(DataType type);

// Puts BYTES of shape [rows, k] ([k] where not `batched`) in place of each output for which
// `classes` asks for some: of each row the elements with the highest values, the highest first,
// written "value:index" or "value:index:label" as Triton does. k is the number asked for, or that
// of a row's elements where it is smaller. `classes` is as long as the outputs. REQUIRES:
// CanBeClassified() of these outputs.
void Classify(absl::Span<const Classes> classes, bool batched, Response& response);

}  // namespace millrace
