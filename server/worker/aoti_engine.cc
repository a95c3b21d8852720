// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/aoti_engine.h"

#include <sys/utsname.h>
#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
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

// The file of the unpacked package whose name ends so; empty: none does.
std::string FileOfPackage(const std::string& folder, const std::string& ending) {
  std::error_code ignored;
  for (const auto& file : std::filesystem::directory_iterator(folder, ignored)) {
    if (absl::EndsWith(file.path().string(), ending)) return file.path().string();
  }
  return "";
}

std::string CpuInfo() {
  std::ifstream file("/proc/cpuinfo");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

absl::Status CheckMachine(const LoadCommand& command, PackageMetadata& metadata) {
  const std::string device = metadata["AOTI_DEVICE_KEY"];
  if (command.on_gpu != (device != "cpu")) {
    return absl::FailedPreconditionError(
        absl::StrCat("the package was compiled for the device '", device,
                     "', but its replicas run on ", command.on_gpu ? "a GPU" : "the CPU",
                     "; change the config's instance_group or compile it for the other device"));
  }
  utsname machine = {};
  uname(&machine);
  const std::string& compiled_for = metadata["AOTI_MACHINE"];
  if (!compiled_for.empty() && compiled_for != machine.machine) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the package was compiled for the CPU architecture ", compiled_for,
        ", but this machine is ", machine.machine, "; compile it on a machine like this one"));
  }
  return CheckCpuIsa(metadata["AOTI_CPU_ISA"], CpuInfo());
}

// Tells a package of another libtorch from one that is broken: its code calls functions that this
// one doesn't have, or lacks some that this one calls.
absl::Status ForThisLibtorch(const absl::Status& status) {
  const absl::string_view text = status.message();
  const bool symbol = absl::StrContains(text, "undefined symbol") ||
                      absl::StrContains(text, "version `") || absl::StrContains(text, "dlsym");
  if (!symbol) return status;
  return absl::FailedPreconditionError(absl::StrCat(
      "the package was compiled by another version of torch than that of the libtorch which is to "
      "run it, ",
      TORCH_VERSION, "; compile it again with that one (", text, ")"));
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
    MILLRACE_ASSIGN_OR_RETURN(runner_, LoadPackage(command_.folder, device_name_, device));
    return MapTensors(notes);
  }

  absl::StatusOr<std::vector<at::Tensor>> Run(std::vector<at::Tensor> inputs) override {
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<at::Tensor> returned,
                              RunPackage(std::move(inputs)));
    if (returned.size() != output_positions_.size()) return WrongCount(returned.size());
    std::vector<at::Tensor> outputs;
    outputs.reserve(returned.size());
    for (const size_t position : output_positions_) outputs.push_back(returned[position]);
    return outputs;
  }

  absl::StatusOr<Returned> RunUndeclared(std::vector<at::Tensor> inputs) override {
    MILLRACE_ASSIGN_OR_RETURN(std::vector<at::Tensor> returned, RunPackage(std::move(inputs)));
    return Returned{std::move(returned), output_names_};
  }

  // The package looks at this variable when it runs first.
  void CheckInputs() override { setenv("AOTI_RUNTIME_CHECK_INPUTS", "1", /*overwrite=*/1); }

  size_t weight_bytes() const override { return 0; }

 private:
  absl::StatusOr<std::vector<at::Tensor>> RunPackage(std::vector<at::Tensor> inputs) {
    absl::StatusOr<std::vector<at::Tensor>> returned =
        CatchModelErrors([&]() -> absl::StatusOr<std::vector<at::Tensor>> {
          std::vector<at::Tensor> arguments(inputs.size());
          for (size_t i = 0; i < inputs.size(); ++i) {
            arguments[input_positions_[i]] = std::move(inputs[i]);
          }
          return runner_->boxed_run(std::move(arguments));
        });
    return returned.ok() ? std::move(returned) : Refined(returned.status());
  }

  absl::Status WrongCount(size_t returned) const {
    return absl::FailedPreconditionError(
        absl::StrCat("the config declares ", command_.outputs.size(),
                     " outputs, but the package returns ", returned));
  }

  // Finds the config's tensors among the package's.
  absl::Status MapTensors(Notes& notes) {
    MILLRACE_ASSIGN_OR_RETURN(const PackageTensors tensors, TensorsOf(*runner_));
    const auto& [inputs, outputs] = tensors;
    if (inputs.size() != command_.inputs.size()) {
      return absl::InvalidArgumentError(absl::StrCat("the config declares ", command_.inputs.size(),
                                                     " inputs, but the package takes ",
                                                     inputs.size()));
    }
    const bool declared = !command_.outputs.empty();
    if (declared && outputs.size() != command_.outputs.size()) return WrongCount(outputs.size());
    MILLRACE_ASSIGN_OR_RETURN(NameMap in, MapNames("INPUT__", NamesOf(command_.inputs), inputs));
    MILLRACE_ASSIGN_OR_RETURN(NameMap out,
                              MapNames("OUTPUT__", NamesOf(command_.outputs), outputs));
    if (in.by_order && inputs.size() > 1) {
      notes.push_back("the package doesn't name its inputs: they are given in the config's order");
    }
    input_positions_ = std::move(in.positions);
    output_positions_ = std::move(out.positions);
    output_names_ = outputs;
    return absl::OkStatus();
  }

  const LoadCommand& command_;
  const std::string device_name_;  // As the package names it.
  std::unique_ptr<AOTIModelContainerRunner> runner_;
  std::vector<size_t> input_positions_;    // Among the package's, per input of the config.
  std::vector<size_t> output_positions_;   // Among the package's, per output of the config.
  std::vector<std::string> output_names_;  // The package's.
};

// Weights that lie beside the code. Older versions of libtorch always put them into it.
template <typename Runner>
absl::Status LoadWeights(const std::string& folder, Runner& runner) {
  const std::string weights = FileOfPackage(folder, "_weights.blob");
  if (weights.empty()) return absl::OkStatus();
  if constexpr (requires { runner.update_constant_buffer_from_blob(weights); }) {
    runner.update_constant_buffer_from_blob(weights);
    return absl::OkStatus();
  } else {
    return absl::UnimplementedError("this libtorch reads no weights beside the code");
  }
}

absl::StatusOr<std::unique_ptr<AOTIModelContainerRunner>> LoadCode(const std::string& folder,
                                                                   const std::string& device_name,
                                                                   c10::Device device) {
  const std::string code = FileOfPackage(folder, ".so");
  auto& makers = torch::inductor::getAOTIModelRunnerRegistry();
  const auto maker = makers.find(device_name);
  if (code.empty() || maker == makers.end()) {
    return absl::InvalidArgumentError(
        code.empty()
            ? "there is no compiled code in the package"
            : absl::StrCat("this libtorch runs no packages for the device '", device_name, "'"));
  }
  const std::string index = device.is_cpu() ? "" : absl::StrCat(":", int{device.index()});
  std::unique_ptr<AOTIModelContainerRunner> runner =
      maker->second(code, /*num_models=*/1, absl::StrCat(device_name, index), folder,
                    /*run_single_threaded=*/true);
  MILLRACE_RETURN_IF_ERROR(LoadWeights(folder, *runner));
  return runner;
}

}  // namespace

absl::StatusOr<PackageMetadata> ReadPackageMetadata(const std::string& folder) {
  absl::StatusOr<PackageMetadata> metadata =
      CatchModelErrors([&]() -> absl::StatusOr<PackageMetadata> {
        std::ifstream file(FileOfPackage(folder, "wrapper_metadata.json"));
        if (!file.is_open()) return absl::InvalidArgumentError("there is no metadata in it");
        return nlohmann::json::parse(file).get<PackageMetadata>();
      });
  if (metadata.ok()) return metadata;
  return UnreadableFile(EngineKind::kAotInductor, metadata.status());
}

absl::StatusOr<std::unique_ptr<AOTIModelContainerRunner>> LoadPackage(
    const std::string& folder, const std::string& device_name, c10::Device device) {
  absl::StatusOr<std::unique_ptr<AOTIModelContainerRunner>> runner =
      CatchModelErrors([&] { return LoadCode(folder, device_name, device); });
  if (runner.ok()) return runner;
  return ForThisLibtorch(runner.status());
}

absl::StatusOr<PackageTensors> TensorsOf(AOTIModelContainerRunner& runner) {
  const auto spec = CatchModelErrors(
      [&]() -> absl::StatusOr<std::vector<std::string>> { return runner.get_call_spec(); });
  if (!spec.ok()) return spec.status();
  if (spec->size() != 2) return absl::InternalError("the package has no call specification");
  PackageTensors tensors;
  MILLRACE_ASSIGN_OR_RETURN(tensors.inputs, TensorsOfCallSpec((*spec)[0]));
  MILLRACE_ASSIGN_OR_RETURN(tensors.outputs, TensorsOfCallSpec((*spec)[1]));
  return tensors;
}

absl::StatusOr<std::unique_ptr<Engine>> OpenAotInductor(const LoadCommand& command) {
  MILLRACE_ASSIGN_OR_RETURN(PackageMetadata metadata, ReadPackageMetadata(command.folder));
  MILLRACE_RETURN_IF_ERROR(CheckMachine(command, metadata));
  return std::make_unique<AotInductorEngine>(command, metadata["AOTI_DEVICE_KEY"]);
}

}  // namespace millrace
