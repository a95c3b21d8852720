// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/inference/warmup.h"
#include "server/repository/model_settings.h"

namespace millrace {

// The folder of a model's that holds them.
inline constexpr char kWarmupFolder[] = "warmup";

// Reads the files that the samples name from the folder `warmup` of `directory`, which is a model's
// in its repository, and writes into the samples where their rows are. A file holds what clients
// send for the input: the tensor's bytes, of one row or of all rows of the sample that declares it;
// a picture where the input has a transform. Returns the rows; empty where no sample names a file.
// NOT_FOUND, PERMISSION_DENIED (see OpenBeneath()) or INVALID_ARGUMENT name the file, what came and
// what was expected. Blocks on the disk, and for as long as pictures take to decode.
absl::StatusOr<std::vector<std::byte>> ReadWarmupFiles(const std::string& directory,
                                                       const ModelSettings& settings,
                                                       std::vector<WarmupSample>& samples);

}  // namespace millrace
