// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/channel/control_socket.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/engine.h"
#include "server/worker/model.h"
#include "server/worker/observed_outputs.h"
#include "server/worker/package_inputs.h"

namespace millrace {

// The inspector process: shuts itself in as a template does, opens a model of which no config says
// what it takes and returns, and finds that out. Its file tells what it can; the rest is tried:
//
//  1. The model runs with 1, 2 and 3 rows. It has a batch dimension if it takes them all and each
//     output has as many rows. A model that takes one row only is given one.
//  2. Else it runs with the dims as they are: it has no batch dimension.
//  3. Dims of outputs that differ from run to run, by values or by sizes of open dims, are open.
//  4. What was found is checked as a config is when a model is loaded; see Model.
//
// Each run is a child process of its own, so that one that crashes is an error. The server ends the
// whole process where it hangs. Confined to the main thread.
class ModelInspector {
 public:
  explicit ModelInspector(ControlSocket control) : control_(std::move(control)) {}

  // Serves one InspectCommand. An error says why even that can't be answered.
  absl::Status Run();

 private:
  // An input to try: its dims are without the batch dimension where the model may have one.
  struct Candidate {
    TensorSpec spec;
    std::vector<DimRange> dims;
    DimRange batch;  // That dimension, where a package told it.
  };
  // How the model is run: `rows` 0 is without a batch dimension; `wide` gives open dims another
  // size; `seed` 0 is zeros, else random values.
  struct Trial {
    int64_t rows = 0;
    bool wide = false;
    uint64_t seed = 0;
  };

  absl::StatusOr<Inspection> Inspect(int model_fd);
  // Tells the server what happens next.
  absl::Status Tell(std::string stage) const;

  // ---- What the file tells ----

  absl::Status OpenScript(int model_fd);
  absl::Status OpenPackage();
  // The sizes of `shape` as ranges.
  static std::vector<DimRange> RangesOf(const Shape& shape);
  // The given inputs by the places of the model's own (`names`).
  absl::StatusOr<std::vector<std::optional<TensorSpec>>> GivenByPlace(
      const std::vector<std::string>& names) const;
  // Sets what a package told as candidates, narrowed to what was given.
  absl::Status TakeTold(const std::vector<std::string>& names,
                        const std::vector<PackageInput>& told);
  absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(const LoadCommand& command, Notes& notes);
  // Opens the engine for runs of the candidates.
  absl::Status OpenTrial();

  // ---- What trying tells ----

  absl::Status FindOutputs();
  // OK where the model has a batch dimension, else why it has none, or none that can be served.
  absl::Status FindBatchedOutputs();
  absl::Status FindUnbatchedOutputs(const absl::Status& because);
  // Runs all trials with so many rows; their results, or why none succeeded.
  absl::StatusOr<std::vector<ObservedRun>> TryRows(int64_t rows);
  absl::StatusOr<std::vector<TensorSpec>> Try(const Trial& trial);
  std::vector<int64_t> SizesOf(const Candidate& candidate, const Trial& trial) const;
  // Takes the runs as what the model returns.
  absl::Status Settle(const std::vector<ObservedRun>& runs, int64_t max_batch_size);
  // Holds the findings to what a load would hold a config to.
  absl::Status Verify();
  // Runs it with batches of the sizes that it shall take, in a child process. Where it raises on
  // values that were made up, that is a note.
  absl::Status RunAsServed(Model& model);
  // Of a package nobody has said that its first dimension is the batch's: it isn't, where rows
  // aren't known to be independent.
  void DoubtBatching();

  bool has_open_dims() const;

  const ControlSocket control_;
  InspectCommand command_;
  LoadCommand trial_;  // Without outputs, for runs whose results aren't known yet.
  std::optional<torch::jit::Module> module_;
  std::unique_ptr<Engine> engine_;  // For `trial_`.
  std::vector<Candidate> candidates_;
  bool may_batch_ = true;  // The inputs may have a batch dimension in front.
  int64_t most_rows_ = DimRange::kUnbounded;
  Inspection found_;
};

}  // namespace millrace
