// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/batch_check.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/worker/comparison.h"
#include "server/worker/model_error.h"

namespace millrace {
namespace {

constexpr int64_t kMostRows = 4;

using Verdict = Comparison::Verdict;
using Tensors = std::vector<at::Tensor>;

// Values for a batch whose rows differ. Where there is less data than rows, rows that are taken a
// second time are made a little smaller.
absl::StatusOr<Tensors> MakeBatch(const Model& model, const WarmupSample& sample, int64_t rows,
                                  bool random) {
  MILLRACE_ASSIGN_OR_RETURN(Tensors batch, model.MakeInputs(sample, rows, random));
  if (random) return batch;
  for (const WarmupInput& input : sample.inputs) {
    at::Tensor& tensor = batch[static_cast<size_t>(&input - sample.inputs.data())];
    if (input.data_rows == 0 || !c10::isFloatingType(tensor.scalar_type())) continue;
    for (int64_t row = input.data_rows; row < rows; ++row) {
      tensor.select(0, row).mul_(1 - 0.125 * static_cast<double>(row / input.data_rows));
    }
  }
  return batch;
}

// Copies, since a model may write to its inputs.
Tensors Rows(const Tensors& batch, int64_t first, int64_t count) {
  Tensors rows;
  for (const at::Tensor& tensor : batch) rows.push_back(tensor.narrow(0, first, count).clone());
  return rows;
}

// Compares the rows of one batch with the same rows alone.
absl::StatusOr<Comparison> CompareBatch(const LoadCommand& command, Model& model,
                                        const Tensors& batch, int64_t rows) {
  Comparison unclear;
  MILLRACE_ASSIGN_OR_RETURN(const Tensors together, model.Run(Rows(batch, 0, rows), rows));
  for (int64_t row = 0; row < rows; ++row) {
    MILLRACE_ASSIGN_OR_RETURN(const Tensors alone, model.Run(Rows(batch, row, 1), 1));
    Comparison found = CompareOutputs(command, alone, Rows(together, row, 1));
    if (found.verdict == Verdict::kUnclear) unclear = found;
    if (found.verdict != Verdict::kDifferent) continue;
    MILLRACE_ASSIGN_OR_RETURN(const Tensors again, model.Run(Rows(batch, row, 1), 1));
    MILLRACE_ASSIGN_OR_RETURN(const Tensors together_again, model.Run(Rows(batch, 0, rows), rows));
    if (CompareOutputs(command, alone, again).verdict != Verdict::kSame ||
        CompareOutputs(command, together, together_again).verdict != Verdict::kSame) {
      return Comparison{Verdict::kUnclear, "the same rows get other results each time"};
    }
    found.where = absl::StrCat("row ", row, " of ", rows, " ", found.where);
    return found;
  }
  return unclear;
}

// What becomes of a sample, over all seeds.
absl::Status CheckSample(const LoadCommand& command, Model& model, const WarmupSample& sample,
                         bool random) {
  const int64_t rows = std::min(kMostRows, command.max_batch_size);
  absl::Status unclear;
  std::string different;
  bool always = true;
  for (const uint64_t seed : kJudgingSeeds) {
    at::manual_seed(seed);
    const absl::StatusOr<Comparison> compared =
        CatchModelErrors([&]() -> absl::StatusOr<Comparison> {
          MILLRACE_ASSIGN_OR_RETURN(const Tensors batch, MakeBatch(model, sample, rows, random));
          return CompareBatch(command, model, batch, rows);
        });
    if (!compared.ok()) {
      return absl::UnknownError(absl::StrCat("the model raised: ", compared.status().message()));
    }
    always &= compared->verdict == Verdict::kDifferent;
    if (compared->verdict != Verdict::kSame) unclear = absl::UnknownError(compared->where);
    if (compared->verdict == Verdict::kDifferent) different = compared->where;
  }
  if (!always) return unclear;
  return absl::FailedPreconditionError(
      absl::StrCat("rows get other results in a batch than alone: ", different));
}

}  // namespace

absl::Status CheckRowsAreIndependent(const LoadCommand& command, Model& model) {
  absl::Status unclear;
  bool judged = false;
  const auto check = [&](const WarmupSample& sample, bool random) {
    const absl::Status status = CheckSample(command, model, sample, random);
    judged |= status.ok();
    if (!status.ok()) unclear = status;
    return absl::IsFailedPrecondition(status);
  };
  for (const WarmupSample& sample : command.warmup) {
    if (sample.declared && check(sample, /*random=*/false)) return unclear;
  }
  if (command.warmup.empty()) {
    return absl::UnknownError("the config leaves dims open (-1) and declares no model_warmup");
  }
  if (check(command.warmup.front(), /*random=*/true)) return unclear;
  return judged ? absl::OkStatus() : unclear;
}

}  // namespace millrace
