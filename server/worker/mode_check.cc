// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/mode_check.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/worker/comparison.h"
#include "server/worker/model_error.h"

namespace millrace {
namespace {

using Verdict = Comparison::Verdict;
using Tensors = std::vector<at::Tensor>;

// A value in BF16 has eight bits, so some layers together are wrong by about a percent.
constexpr double kRoundingInBfloat16 = 5e-2;
constexpr int64_t kMostRows = 4;

// Copies, since a model may write to its inputs.
Tensors CopyOf(const Tensors& tensors) {
  Tensors copies;
  for (const at::Tensor& tensor : tensors) copies.push_back(tensor.clone());
  return copies;
}

absl::StatusOr<Comparison> CompareRun(const LoadCommand& command, Model& plain, Model& model,
                                      const Tensors& inputs, int64_t rows) {
  const absl::StatusOr<Tensors> expected = plain.Run(CopyOf(inputs), rows);
  if (!expected.ok()) {
    return absl::UnknownError(absl::StrCat("the model raised: ", expected.status().message()));
  }
  const absl::StatusOr<Tensors> came = model.Run(CopyOf(inputs), rows);
  if (!came.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "it raises in ", ModeName(command.mode), ", but not otherwise: ", came.status().message()));
  }
  Comparison found = command.mode.bfloat16
                         ? CompareOutputs(command, *expected, *came, kRoundingInBfloat16)
                         : CompareOutputs(command, *expected, *came);
  if (found.verdict != Verdict::kDifferent) return found;
  MILLRACE_ASSIGN_OR_RETURN(const Tensors again, plain.Run(CopyOf(inputs), rows));
  if (CompareOutputs(command, *expected, again).verdict == Verdict::kSame) return found;
  return Comparison{Verdict::kUnclear, "the same inputs get other results each time"};
}

// What becomes of a sample, over all seeds.
absl::Status CheckSample(const LoadCommand& command, Model& plain, Model& model,
                         const WarmupSample& sample, bool random) {
  const int64_t rows = std::clamp<int64_t>(command.max_batch_size, 1, kMostRows);
  absl::Status unclear;
  std::string different;
  bool always = true;
  for (const uint64_t seed : kJudgingSeeds) {
    at::manual_seed(seed);
    MILLRACE_ASSIGN_OR_RETURN(
        const Comparison compared, CatchModelErrors([&]() -> absl::StatusOr<Comparison> {
          MILLRACE_ASSIGN_OR_RETURN(const Tensors inputs, model.MakeInputs(sample, rows, random));
          return CompareRun(command, plain, model, inputs, rows);
        }));
    always &= compared.verdict == Verdict::kDifferent;
    if (compared.verdict != Verdict::kSame) unclear = absl::UnknownError(compared.where);
    if (compared.verdict == Verdict::kDifferent) different = compared.where;
  }
  if (!always) return unclear;
  return absl::FailedPreconditionError(
      absl::StrCat("its results in ", ModeName(command.mode), " are other ones: ", different));
}

}  // namespace

std::string ModeName(const ExecutionMode& mode) {
  return absl::StrCat(mode.bfloat16 ? "BF16" : "",
                      mode.bfloat16 && mode.channels_last ? " and " : "",
                      mode.channels_last ? "channels_last" : "");
}

absl::Status CheckModeAgrees(const LoadCommand& command, int model_fd, Model& model) {
  if (command.warmup.empty()) {
    return absl::UnknownError("the config leaves dims open (-1) and declares no model_warmup");
  }
  LoadCommand as_it_is = command;
  as_it_is.mode.bfloat16 = as_it_is.mode.channels_last = false;
  Notes ignored;
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<Model> plain,
                            Model::Open(as_it_is, model_fd, /*warmup_data=*/{}, ignored));
  MILLRACE_RETURN_IF_ERROR(plain->Prepare(c10::Device(c10::kCPU), ignored));
  for (const WarmupSample& sample : command.warmup) {
    if (!sample.declared) continue;
    MILLRACE_RETURN_IF_ERROR(CheckSample(command, *plain, model, sample, /*random=*/false));
  }
  return CheckSample(command, *plain, model, command.warmup.front(), /*random=*/true);
}

}  // namespace millrace
