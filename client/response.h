// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/request.h"
#include "client/tensor.h"

namespace millrace {
inline namespace client {

// What a model returned for one request: a plain value.
struct Response {
  std::string model;
  std::string version;
  // The request's.
  std::string id;
  Parameters parameters;
  std::vector<Tensor> outputs;

  // The output of that name, owned by this response, or NOT_FOUND naming the ones that are there.
  absl::StatusOr<const Tensor*> Output(const std::string& name) const;
};

}  // namespace client
}  // namespace millrace
