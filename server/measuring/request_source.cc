// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/request_source.h"

#include <cstring>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/inference/data_type.h"
#include "server/repository/warmup_files.h"
#include "server/repository/warmup_plan.h"

namespace millrace {
namespace {

// Where the exponent of a floating-point type stands that all values in [0.5, 1) have, as the bits
// of 0.5, and how many bits of fraction follow it.
struct FloatLayout {
  uint64_t half = 0;
  int fraction = 0;
};

FloatLayout LayoutOf(DataType type) {
  switch (type) {
    case DataType::kFp16:
      return {0x3800, 10};
    case DataType::kBf16:
      return {0x3F00, 7};
    case DataType::kFp32:
      return {0x3F000000, 23};
    case DataType::kFp64:
      return {0x3FE0000000000000, 52};
    default:
      return {};  // An integer: 0.
  }
}

void FillRandom(DataType type, std::vector<std::byte>& bytes) {
  const FloatLayout layout = LayoutOf(type);
  if (layout.fraction == 0) return;
  std::mt19937_64 random(1);
  const size_t size = ElementSize(type);
  const uint64_t mask = (uint64_t{1} << layout.fraction) - 1;
  for (size_t at = 0; at + size <= bytes.size(); at += size) {
    const uint64_t value = layout.half | (random() & mask);
    std::memcpy(bytes.data() + at, &value, size);  // Little-endian, as on the wire.
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const RequestSource>> RequestSource::Create(
    const ModelSettings& settings, const std::string& directory, int64_t most_rows) {
  std::vector<WarmupSample> samples = PlanWarmup(settings);
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<std::byte> data,
                            ReadWarmupFiles(directory, settings, samples));
  std::shared_ptr<RequestSource> source(
      new RequestSource(settings.name, settings.max_batch_size > 0));
  for (size_t i = 0; i < settings.inputs.size(); ++i) {
    const TensorSpec& spec = settings.inputs[i];
    if (samples.empty()) {
      if (ElementCount(spec.dims)) continue;  // Another one's are open.
      return absl::FailedPreconditionError(
          absl::StrCat("input '", spec.name, "' has the dims ", ToString(spec.dims),
                       ", so it isn't known what to measure with; declare a model_warmup sample in "
                       "config.pbtxt with sizes as they are usual"));
    }
    const WarmupSample& sample = samples.front();
    const WarmupInput& declared = sample.inputs[i];
    const auto elements = static_cast<size_t>(ElementCount(declared.dims).value_or(0));
    Input input = {.name = spec.name,
                   .data_type = std::string(WireName(spec.data_type)),
                   .dims = declared.dims,
                   .row_bytes = elements * ElementSize(spec.data_type),
                   .rows = {}};
    input.rows.resize(input.row_bytes * static_cast<size_t>(most_rows));
    if (declared.data_rows > 0) {
      for (size_t row = 0; row < static_cast<size_t>(most_rows); ++row) {
        const size_t from = row % static_cast<size_t>(declared.data_rows);
        std::memcpy(input.rows.data() + row * input.row_bytes,
                    data.data() + declared.data_offset + from * input.row_bytes, input.row_bytes);
      }
    } else if (declared.random || !sample.declared) {
      FillRandom(spec.data_type, input.rows);
    }
    source->inputs_.push_back(std::move(input));
  }
  return source;
}

Request RequestSource::Make(int64_t rows) const {
  Request request;
  request.model_name = model_;
  for (const Input& input : inputs_) {
    InputTensor& tensor = request.inputs.emplace_back();
    tensor.name = input.name;
    tensor.data_type = input.data_type;
    tensor.shape = input.dims;
    if (batched_) tensor.shape.insert(tensor.shape.begin(), rows);
    tensor.payload =
        Payload(absl::MakeConstSpan(input.rows).first(input.row_bytes * static_cast<size_t>(rows)));
  }
  request.payload_owner = shared_from_this();
  return request;
}

}  // namespace millrace
