// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/aoti_engine.h"

#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/inference/shape.h"
#include "server/worker/call_spec.h"
#include "server/worker/cpu_isa.h"
#include "server/worker/fd_reader.h"
#include "server/worker/model_error.h"
#include "server/worker/name_map.h"
#include "server/worker/temp_dir.h"
#include "server/worker/tensors.h"

namespace millrace {
namespace {

using torch::inductor::AOTIModelPackageLoader;
using Metadata = std::map<std::string, std::string>;

// What a package says of itself; no code of it is loaded.
absl::StatusOr<Metadata> ReadMetadata(int model_fd) {
  absl::StatusOr<Metadata> metadata = CatchModelErrors([&]() -> absl::StatusOr<Metadata> {
    caffe2::serialize::PyTorchStreamReader archive(std::make_shared<FdReader>(model_fd));
    for (const std::string& name : archive.getAllRecords()) {
      if (!absl::EndsWith(name, "wrapper_metadata.json")) continue;
      const auto [bytes, size] = archive.getRecord(name);
      const auto* const text = static_cast<const char*>(bytes.get());
      return nlohmann::json::parse(text, text + size).get<Metadata>();
    }
    return absl::InvalidArgumentError("there is no metadata in it");
  });
  if (metadata.ok()) return metadata;
  return absl::InvalidArgumentError(
      absl::StrCat("the file could not be read as an AOTInductor package (expected is what "
                   "torch._inductor.aoti_compile_and_package writes): ",
                   metadata.status().message()));
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
  AotInductorEngine(const LoadCommand& command, int model_fd)
      : command_(command), model_fd_(model_fd) {}

  absl::Status Prepare(c10::Device device, Notes& notes) override {
    MILLRACE_ASSIGN_OR_RETURN(files_, TempDir::Create());
    if (HasOpenDims(command_.inputs)) CheckInputs();
    MILLRACE_RETURN_IF_ERROR(CatchModelErrors([&]() -> absl::Status {
      loader_.emplace(absl::StrCat("/proc/self/fd/", model_fd_), "model",
                      /*run_single_threaded=*/true, /*num_runners=*/1,
                      device.is_cpu() ? -1 : device.index());
      return absl::OkStatus();
    }));
    if (device.is_cpu()) files_.reset();  // What is mapped stays; a GPU's kernels load later.
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
      std::vector<at::Tensor> returned = loader_->boxed_run(std::move(arguments));
      files_.reset();
      if (returned.size() != output_positions_.size()) return WrongCount(returned.size());
      std::vector<at::Tensor> outputs;
      outputs.reserve(returned.size());
      for (const size_t position : output_positions_) outputs.push_back(returned[position]);
      return outputs;
    });
  }

  absl::Status WrongCount(size_t returned) const {
    return absl::FailedPreconditionError(
        absl::StrCat("the config declares ", command_.outputs.size(),
                     " outputs, but the package returns ", returned));
  }

  // Finds the config's tensors among the package's.
  absl::Status MapTensors(Notes& notes) {
    const std::vector<std::string> spec = loader_->get_call_spec();
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
  const int model_fd_;
  std::unique_ptr<TempDir> files_;  // What the loader unpacked, as long as it is needed.
  std::optional<AOTIModelPackageLoader> loader_;
  std::vector<size_t> input_positions_;   // Among the package's, per input of the config.
  std::vector<size_t> output_positions_;  // Among the package's, per output of the config.
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> OpenAotInductor(const LoadCommand& command, int model_fd,
                                                        Notes&) {
  MILLRACE_ASSIGN_OR_RETURN(Metadata metadata, ReadMetadata(model_fd));
  MILLRACE_RETURN_IF_ERROR(CheckMachine(command, metadata));
  return std::make_unique<AotInductorEngine>(command, model_fd);
}

}  // namespace millrace
