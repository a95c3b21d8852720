// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/aoti_engine.h"

#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/inference/shape.h"
#include "server/worker/call_spec.h"
#include "server/worker/cpu_isa.h"
#include "server/worker/model_error.h"
#include "server/worker/name_map.h"
#include "server/worker/package.h"
#include "server/worker/tensors.h"

namespace millrace {
namespace {

using torch::inductor::AOTIModelContainerRunner;
using Metadata = std::map<std::string, std::string>;

// The file of the unpacked package whose name ends so; empty: none does.
std::string FileOfPackage(const std::string& folder, const std::string& ending) {
  std::error_code ignored;
  for (const auto& file : std::filesystem::directory_iterator(folder, ignored)) {
    if (absl::EndsWith(file.path().string(), ending)) return file.path().string();
  }
  return "";
}

// What a package says of itself; no code of it is loaded.
absl::StatusOr<Metadata> ReadMetadata(const std::string& folder) {
  absl::StatusOr<Metadata> metadata = CatchModelErrors([&]() -> absl::StatusOr<Metadata> {
    std::ifstream file(FileOfPackage(folder, "wrapper_metadata.json"));
    if (!file.is_open()) return absl::InvalidArgumentError("there is no metadata in it");
    return nlohmann::json::parse(file).get<Metadata>();
  });
  if (metadata.ok()) return metadata;
  return UnreadableFile(EngineKind::kAotInductor, metadata.status());
}

std::string CpuInfo() {
  std::ifstream file("/proc/cpuinfo");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

absl::Status CheckMachine(const LoadCommand& command, Metadata& metadata) {
  const std::string device = metadata["AOTI_DEVICE_KEY"];
  if (command.on_gpu != (device != "cpu")) {
    return absl::FailedPreconditionError(
        absl::StrCat("the package was compiled for the device '", device,
                     "', but its replicas run on ", command.on_gpu ? "a GPU" : "the CPU",
                     "; change the config's instance_group or compile it for the other device"));
  }
  return CheckCpuIsa(metadata["AOTI_CPU_ISA"], CpuInfo());
}

bool HasOpenDims(const std::vector<TensorSpec>& specs) {
  return std::any_of(specs.begin(), specs.end(),
                     [](const TensorSpec& spec) { return !ElementCount(spec.dims); });
}

// Tells what the package's own checks say from what the model raises.
absl::Status Refined(const absl::Status& status) {
  if (!absl::StrContains(status.message(), "input_handles[")) return status;
  const bool too_small = absl::StrContains(status.message(), "too small");
  return absl::InvalidArgumentError(absl::StrCat(
      "the package doesn't take this input: ", status.message(),
      too_small ? "; if it does run sizes of 1, compile it with aot_inductor.check_lowerbound=False"
                : ""));
}

class AotInductorEngine final : public Engine {
 public:
  AotInductorEngine(const LoadCommand& command, std::string device)
      : command_(command), device_name_(std::move(device)) {}

  absl::Status Prepare(c10::Device device, Notes& notes) override {
    if (HasOpenDims(command_.inputs)) CheckInputs();
    MILLRACE_RETURN_IF_ERROR(CatchModelErrors([&] { return LoadCode(device); }));
    return MapTensors(notes);
  }

  absl::StatusOr<std::vector<at::Tensor>> Run(std::vector<at::Tensor> inputs) override {
    absl::StatusOr<std::vector<at::Tensor>> outputs = RunPackage(std::move(inputs));
    return outputs.ok() ? std::move(outputs) : Refined(outputs.status());
  }

  // The package looks at this variable when it runs first.
  void CheckInputs() override { setenv("AOTI_RUNTIME_CHECK_INPUTS", "1", /*overwrite=*/1); }

  size_t weight_bytes() const override { return 0; }

 private:
  absl::StatusOr<std::vector<at::Tensor>> RunPackage(std::vector<at::Tensor> inputs) {
    return CatchModelErrors([&]() -> absl::StatusOr<std::vector<at::Tensor>> {
      std::vector<at::Tensor> arguments(inputs.size());
      for (size_t i = 0; i < inputs.size(); ++i) {
        arguments[input_positions_[i]] = std::move(inputs[i]);
      }
      std::vector<at::Tensor> returned = runner_->boxed_run(std::move(arguments));
      if (returned.size() != output_positions_.size()) return WrongCount(returned.size());
      std::vector<at::Tensor> outputs;
      outputs.reserve(returned.size());
      for (const size_t position : output_positions_) outputs.push_back(returned[position]);
      return outputs;
    });
  }

  absl::Status LoadCode(c10::Device device) {
    const std::string code = FileOfPackage(command_.folder, ".so");
    auto& makers = torch::inductor::getAOTIModelRunnerRegistry();
    const auto maker = makers.find(device_name_);
    if (code.empty() || maker == makers.end()) {
      return absl::InvalidArgumentError(
          code.empty()
              ? "there is no compiled code in the package"
              : absl::StrCat("this libtorch runs no packages for the device '", device_name_, "'"));
    }
    const std::string index = device.is_cpu() ? "" : absl::StrCat(":", int{device.index()});
    runner_ = maker->second(code, /*num_models=*/1, absl::StrCat(device_name_, index),
                            command_.folder, /*run_single_threaded=*/true);
    return LoadWeights(*runner_);
  }

  // Weights that lie beside the code. Older versions of libtorch always put them into it.
  template <typename Runner>
  absl::Status LoadWeights(Runner& runner) const {
    const std::string weights = FileOfPackage(command_.folder, "_weights.blob");
    if (weights.empty()) return absl::OkStatus();
    if constexpr (requires { runner.update_constant_buffer_from_blob(weights); }) {
      runner.update_constant_buffer_from_blob(weights);
      return absl::OkStatus();
    } else {
      return absl::UnimplementedError("this libtorch reads no weights beside the code");
    }
  }

  absl::Status WrongCount(size_t returned) const {
    return absl::FailedPreconditionError(
        absl::StrCat("the config declares ", command_.outputs.size(),
                     " outputs, but the package returns ", returned));
  }

  // Finds the config's tensors among the package's.
  absl::Status MapTensors(Notes& notes) {
    const std::vector<std::string> spec = runner_->get_call_spec();
    if (spec.size() != 2) return absl::InternalError("the package has no call specification");
    MILLRACE_ASSIGN_OR_RETURN(const auto inputs, TensorsOfCallSpec(spec[0]));
    MILLRACE_ASSIGN_OR_RETURN(const auto outputs, TensorsOfCallSpec(spec[1]));
    if (inputs.size() != command_.inputs.size()) {
      return absl::InvalidArgumentError(absl::StrCat("the config declares ", command_.inputs.size(),
                                                     " inputs, but the package takes ",
                                                     inputs.size()));
    }
    if (outputs.size() != command_.outputs.size()) return WrongCount(outputs.size());
    MILLRACE_ASSIGN_OR_RETURN(NameMap in, MapNames("INPUT__", NamesOf(command_.inputs), inputs));
    MILLRACE_ASSIGN_OR_RETURN(NameMap out,
                              MapNames("OUTPUT__", NamesOf(command_.outputs), outputs));
    if (in.by_order && inputs.size() > 1) {
      notes.push_back("the package doesn't name its inputs: they are given in the config's order");
    }
    input_positions_ = std::move(in.positions);
    output_positions_ = std::move(out.positions);
    return absl::OkStatus();
  }

  const LoadCommand& command_;
  const std::string device_name_;  // As the package names it.
  std::unique_ptr<AOTIModelContainerRunner> runner_;
  std::vector<size_t> input_positions_;   // Among the package's, per input of the config.
  std::vector<size_t> output_positions_;  // Among the package's, per output of the config.
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> OpenAotInductor(const LoadCommand& command) {
  MILLRACE_ASSIGN_OR_RETURN(Metadata metadata, ReadMetadata(command.folder));
  MILLRACE_RETURN_IF_ERROR(CheckMachine(command, metadata));
  return std::make_unique<AotInductorEngine>(command, metadata["AOTI_DEVICE_KEY"]);
}

}  // namespace millrace
