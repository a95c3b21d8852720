// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/model.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/channel/layout.h"
#include "server/worker/aoti_engine.h"
#include "server/worker/devices.h"
#include "server/worker/model_error.h"
#include "server/worker/numerics.h"
#include "server/worker/process.h"
#include "server/worker/tensors.h"
#include "server/worker/torchscript_engine.h"

namespace millrace {
namespace {

// The first two runs of a shape are those that TorchScript profiles and compiles.
constexpr int kLeastRuns = 2;

// How long batch sizes may take together that a warm-up can do without: what is compiled for each
// of them takes a few milliseconds, which show where a batch takes as little.
constexpr absl::Duration kFurtherTime = absl::Seconds(2);

// Forward without recording gradients, in the way that the config asks for.
class ForwardGuard {
 public:
  explicit ForwardGuard(bool inference_mode) {
    if (inference_mode) {
      inference_.emplace();
    } else {
      no_grad_.emplace();
    }
  }

 private:
  std::optional<c10::InferenceMode> inference_;
  std::optional<c10::NoGradGuard> no_grad_;
};

// Checks that the config's tensors can be carried and are of types that libtorch has.
absl::Status CheckSpecs(const std::vector<TensorSpec>& specs, bool batched) {
  if (specs.empty() || specs.size() > kMostTensors) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the config declares ", specs.size(), " inputs or outputs; expected 1 to ", kMostTensors));
  }
  for (const TensorSpec& spec : specs) {
    if (!ToScalarType(spec.data_type)) {
      return absl::InvalidArgumentError(absl::StrCat("'", spec.name, "' is of type ",
                                                     WireName(spec.data_type),
                                                     ", which no libtorch tensor has"));
    }
    if (spec.dims.size() + (batched ? 1 : 0) > kMostDims) {
      return absl::InvalidArgumentError(absl::StrCat("'", spec.name, "' has ", spec.dims.size(),
                                                     " dims; with the batch's at most ", kMostDims,
                                                     " are possible"));
    }
  }
  return absl::OkStatus();
}

at::Tensor ToHost(const at::Tensor& output) {
  at::Tensor dense = output.layout() == c10::kStrided ? output : output.to_dense();
  if (dense.is_cpu()) return dense;
  at::Tensor host = at::empty(dense.sizes(), dense.options().device(c10::kCPU).pinned_memory(true));
  return host.copy_(dense, /*non_blocking=*/true);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> Model::Open(const LoadCommand& command, int model_fd,
                                                   absl::Span<const std::byte> warmup_data,
                                                   Notes& notes) {
  MILLRACE_RETURN_IF_ERROR(SetNumerics(command));  // For the threads that are started from now on.
  std::unique_ptr<Engine> engine;
  if (command.mode.engine == EngineKind::kTorchScript) {
    MILLRACE_ASSIGN_OR_RETURN(torch::jit::Module module, ReadTorchScript(model_fd));
    MILLRACE_ASSIGN_OR_RETURN(engine, OpenTorchScript(command, std::move(module), notes));
  } else {
    MILLRACE_ASSIGN_OR_RETURN(engine, OpenAotInductor(command));
  }
  return Over(command, warmup_data, std::move(engine));
}

absl::StatusOr<std::unique_ptr<Model>> Model::Over(const LoadCommand& command,
                                                   absl::Span<const std::byte> warmup_data,
                                                   std::unique_ptr<Engine> engine) {
  MILLRACE_RETURN_IF_ERROR(CheckSpecs(command.inputs, command.max_batch_size > 0));
  MILLRACE_RETURN_IF_ERROR(CheckSpecs(command.outputs, command.max_batch_size > 0));
  return std::unique_ptr<Model>(new Model(command, warmup_data, std::move(engine)));
}

absl::Status Model::Prepare(c10::Device device, Notes& notes) {
  device_ = device;
  const absl::Status status = engine_->Prepare(device, notes);
  if (absl::IsResourceExhausted(status)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(status.message(), MemoryReport(device, engine_->weight_bytes())));
  }
  return status.ok() ? SetNumerics(command_) : status;
}

absl::Status Model::CheckConfig() {
  if (command_.warmup.empty()) {
    const absl::Status status = RunInChild([&] {
      engine_->CheckInputs();
      return CheckResultKinds();
    });
    // What the child died of says nothing of the config.
    return absl::IsFailedPrecondition(status) ? status : absl::OkStatus();
  }
  if (command_.mode.engine == EngineKind::kTorchScript) return absl::OkStatus();
  const absl::Status status = RunInChild([&] {
    engine_->CheckInputs();
    for (const WarmupSample& sample : command_.warmup) {
      const absl::Status run = RunSample(sample, /*runs=*/1).status();
      // The lower bound of a batch is 2 by default, and batches of 1 run all the same.
      if (absl::IsInvalidArgument(run) && !absl::StrContains(run.message(), "too small"))
        return run;
    }
    return absl::OkStatus();
  });
  return Annotate(status, "trying the model with inputs as the config declares them");
}

absl::Status Model::CheckResultKinds() {
  constexpr int64_t kAnySize = 16;  // For what the config leaves open; a model may raise on it.
  LoadCommand open = command_;
  for (TensorSpec& output : open.outputs) std::fill(output.dims.begin(), output.dims.end(), -1);
  const absl::StatusOr<std::vector<at::Tensor>> outputs = CatchModelErrors([&] {
    std::vector<at::Tensor> inputs;
    for (const TensorSpec& spec : command_.inputs) {
      std::vector<int64_t> dims(spec.dims.begin(), spec.dims.end());
      std::replace(dims.begin(), dims.end(), int64_t{-1}, kAnySize);
      if (command_.max_batch_size > 0) dims.insert(dims.begin(), 1);
      inputs.push_back(MakeValues(spec.data_type, dims, /*random=*/false));
    }
    return RunOnDevice(std::move(inputs));
  });
  const absl::Status status =
      outputs.ok() ? CheckOutputs(open, /*rows=*/1, *outputs) : outputs.status();
  if (!absl::IsFailedPrecondition(status)) return absl::OkStatus();  // It can't be judged so.
  return Annotate(status, "trying the model with inputs of any size");
}

absl::Status Model::WarmUp(Notes& notes) {
  for (const WarmupSample& sample : command_.warmup) {
    const auto took = RunSample(sample, std::max(sample.count, kLeastRuns));
    warmup_ns_.push_back(took.ok() ? absl::ToInt64Nanoseconds(*took) : 0);
    if (took.ok()) continue;
    const absl::Status& status = took.status();
    if (absl::IsResourceExhausted(status)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("warming up with ", sample.rows, " rows: ", status.message(),
                       MemoryReport(device_, engine_->weight_bytes())));
    }
    if (sample.declared || absl::IsFailedPrecondition(status)) {
      return Annotate(status, absl::StrCat("warming up with ", sample.rows, " rows"));
    }
    notes.push_back(absl::StrCat("warming up with invented inputs of ", sample.rows,
                                 " rows is inconclusive, the model raised: ", status.message()));
  }
  return RunFurtherSizes(notes);
}

void Model::Rehearse() {
  for (const WarmupSample& sample : command_.warmup) RunSample(sample, /*runs=*/1).IgnoreError();
}

absl::Status Model::RunFurtherSizes(Notes& notes) {
  const absl::Time end = Clock::Real().Now() + kFurtherTime;
  if (command_.warmup.empty() || warmup_ns_.front() == 0) return absl::OkStatus();
  WarmupSample sample = command_.warmup.front();
  for (const int64_t size : command_.further_batch_sizes) {
    sample.rows = size;
    if (Clock::Real().Now() >= end) {
      notes.push_back(absl::StrCat("batch sizes from ", size,
                                   " on that are no powers of two are not "
                                   "warmed: the others took long enough"));
      return absl::OkStatus();
    }
    const absl::Status status = RunSample(sample, /*runs=*/1).status();
    if (status.ok()) continue;
    const absl::Status told = Annotate(status, absl::StrCat("warming up with ", size, " rows"));
    if (absl::IsFailedPrecondition(status)) return told;
    notes.emplace_back(told.message());
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Duration> Model::RunSample(const WarmupSample& sample, int runs) {
  absl::Duration took;
  for (int run = 0; run < runs; ++run) {
    MILLRACE_ASSIGN_OR_RETURN(std::vector<at::Tensor> inputs, MakeInputs(sample, sample.rows));
    const absl::Time begin = Clock::Real().Now();
    MILLRACE_RETURN_IF_ERROR(Run(std::move(inputs), sample.rows).status());
    took = Clock::Real().Now() - begin;
  }
  return took;
}

absl::StatusOr<std::vector<at::Tensor>> Model::MakeInputs(const WarmupSample& sample, int64_t rows,
                                                          bool random) const {
  std::vector<at::Tensor> inputs;
  for (const TensorSpec& spec : command_.inputs) {
    const auto input =
        std::find_if(sample.inputs.begin(), sample.inputs.end(),
                     [&](const WarmupInput& candidate) { return candidate.name == spec.name; });
    if (input == sample.inputs.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the sample gives no input '", spec.name, "'"));
    }
    MILLRACE_ASSIGN_OR_RETURN(
        at::Tensor tensor, CatchModelErrors([&] { return MakeInput(spec, *input, rows, random); }));
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}

absl::StatusOr<at::Tensor> Model::MakeInput(const TensorSpec& spec, const WarmupInput& input,
                                            int64_t rows, bool random) const {
  std::vector<int64_t> dims(input.dims.begin(), input.dims.end());
  const std::optional<int64_t> row_elements = ElementCount(input.dims);
  if (!row_elements) return absl::InternalError("A sample's dims came to the worker open.");
  if (command_.max_batch_size > 0) dims.insert(dims.begin(), rows);
  if (random || input.data_rows == 0) {
    return MakeValues(spec.data_type, dims, random || input.random);
  }
  const size_t row_bytes = static_cast<size_t>(*row_elements) * ElementSize(spec.data_type);
  const size_t bytes = row_bytes * static_cast<size_t>(input.data_rows);
  if (bytes > warmup_data_.size() || input.data_offset > warmup_data_.size() - bytes) {
    return absl::InternalError(absl::StrCat(
        "Warm-up data of ", warmup_data_.size(), " bytes came to the worker, of which ", bytes,
        " at ", input.data_offset, " were to be input '", spec.name, "'."));
  }
  return CopyRows(spec.data_type, dims, rows, warmup_data_.subspan(input.data_offset, bytes));
}

absl::StatusOr<std::vector<at::Tensor>> Model::Run(std::vector<at::Tensor> inputs, int64_t rows) {
  absl::StatusOr<std::vector<at::Tensor>> outputs =
      CatchModelErrors([&] { return RunOnDevice(std::move(inputs)); });
  if (outputs.ok()) MILLRACE_RETURN_IF_ERROR(CheckOutputs(command_, rows, *outputs));
  return outputs;
}

absl::StatusOr<std::vector<at::Tensor>> Model::RunOnDevice(std::vector<at::Tensor> inputs) {
  const ForwardGuard guard(command_.inference_mode);
  if (command_.deterministic) SeedRun(device_);
  if (!device_.is_cpu()) {
    for (at::Tensor& input : inputs) {
      input = input.pin_memory().to(device_, /*non_blocking=*/true);
    }
  }
  MILLRACE_ASSIGN_OR_RETURN(std::vector<at::Tensor> outputs, engine_->Run(std::move(inputs)));
  for (at::Tensor& output : outputs) {
    if (output.defined()) output = ToHost(output);
  }
  Synchronize(device_);
  return outputs;
}

}  // namespace millrace
