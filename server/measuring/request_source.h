// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/inference/request.h"
#include "server/repository/model_settings.h"

namespace millrace {

// Makes requests for a model, to measure it, with the tensors that it gets itself, whatever clients
// send in place of them. Their inputs are as the configuration's first warm-up sample has them:
// rows of its files in turn, or random values, or zeros. Without a sample they have the dims of the
// configuration; floating-point values are random in [0.5, 1), integers 0. Immutable, hence
// thread-safe.
class RequestSource : public std::enable_shared_from_this<RequestSource> {
 public:
  // For requests of up to `most_rows` rows of the model in the folder `directory`.
  // FAILED_PRECONDITION where the configuration leaves dims open, and no sample says them; see
  // ReadWarmupFiles() for other errors. Blocks on the disk where a sample names files.
  static absl::StatusOr<std::shared_ptr<const RequestSource>> Create(const ModelSettings& settings,
                                                                     const std::string& directory,
                                                                     int64_t most_rows);

  // A request of so many rows; of a model that doesn't batch 1. REQUIRES: 1 <= rows <= most_rows.
  Request Make(int64_t rows) const;

 private:
  struct Input {
    std::string name;
    std::string data_type;
    Shape dims;  // Without the batch dimension.
    size_t row_bytes = 0;
    std::vector<std::byte> rows;  // As many as a request may have.
  };

  RequestSource(std::string model, bool batched) : model_(std::move(model)), batched_(batched) {}

  const std::string model_;
  const bool batched_;
  std::vector<Input> inputs_;
};

}  // namespace millrace
