// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/engine.h"

namespace millrace {

// A model on a device, with the checks around it. Throws nothing. Confined to the main thread.
// `command` must outlive it.
class Model {
 public:
  // Reads the model file as far as may be before a fork. `warmup_data`, which the command's samples
  // take rows from, must outlive the model.
  static absl::StatusOr<std::unique_ptr<Model>> Open(const LoadCommand& command, int model_fd,
                                                     absl::Span<const std::byte> warmup_data,
                                                     Notes& notes);

  // A model that `engine`, opened for the same command, runs.
  static absl::StatusOr<std::unique_ptr<Model>> Over(const LoadCommand& command,
                                                     absl::Span<const std::byte> warmup_data,
                                                     std::unique_ptr<Engine> engine);

  // See Engine::Prepare(). RESOURCE_EXHAUSTED says how much memory a GPU has.
  absl::Status Prepare(c10::Device device, Notes& notes);

  // Runs the command's samples in a child process whose model checks its inputs, and returns what
  // it says of a config that doesn't fit the model; where there are no samples, since dims are
  // open, whether the config's outputs are those of the model by number, data type and rank. For
  // the CPU, before the first run. REQUIRES: this process has one thread.
  absl::Status CheckConfig();

  // Runs the model in this process on inputs of any size, and returns what CheckConfig() would
  // where there are no samples. For a GPU, after Prepare().
  absl::Status CheckResultKinds();

  // Runs the command's samples, each at least twice: the first runs of a shape compile it; then its
  // further batch sizes once each, while that takes a few seconds at most. Samples that nobody
  // declared may fail, which is a note; a result that doesn't fit the config never.
  absl::Status WarmUp(Notes& notes);
  // Runs each sample once, in a fork of a process that has warmed up, whatever comes of it.
  void Rehearse();
  // How long the last run of each sample took, in nanoseconds; see LoadedReply.
  const std::vector<int64_t>& warmup_ns() const { return warmup_ns_; }

  // The inputs of `sample`, by the config's order, with so many rows, which are the model's to
  // write to; `random`: random values, whatever the sample says.
  absl::StatusOr<std::vector<at::Tensor>> MakeInputs(const WarmupSample& sample, int64_t rows,
                                                     bool random = false) const;

  // Runs the model on `inputs` (on the CPU, by the config's order, checked against it) of `rows`
  // rows and returns its outputs, on the CPU, strided, checked against the config.
  // FAILED_PRECONDITION where they don't fit it; else see Engine::Run(). Blocks.
  absl::StatusOr<std::vector<at::Tensor>> Run(std::vector<at::Tensor> inputs, int64_t rows);

 private:
  Model(const LoadCommand& command, absl::Span<const std::byte> warmup_data,
        std::unique_ptr<Engine> engine)
      : command_(command), warmup_data_(warmup_data), engine_(std::move(engine)) {}

  absl::Status RunFurtherSizes(Notes& notes);
  // Returns how long the last run took.
  absl::StatusOr<absl::Duration> RunSample(const WarmupSample& sample, int runs);
  absl::StatusOr<std::vector<at::Tensor>> RunOnDevice(std::vector<at::Tensor> inputs);

  absl::StatusOr<at::Tensor> MakeInput(const TensorSpec& spec, const WarmupInput& input,
                                       int64_t rows, bool random) const;

  const LoadCommand& command_;
  const absl::Span<const std::byte> warmup_data_;
  const std::unique_ptr<Engine> engine_;
  c10::Device device_ = c10::Device(c10::kCPU);
  std::vector<int64_t> warmup_ns_;
};

}  // namespace millrace
