// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/worker/engine.h"

namespace torch::inductor {
class AOTIModelContainerRunner;
}

namespace millrace {

// What an AOTInductor package that was unpacked into a folder says of itself, by keys such as
// AOTI_CPU_ISA; no code of it is loaded.
using PackageMetadata = std::map<std::string, std::string>;
absl::StatusOr<PackageMetadata> ReadPackageMetadata(const std::string& folder);

// Loads the code of an unpacked package for `device`, which is of the kind that the package calls
// `device_name`. FAILED_PRECONDITION where another libtorch compiled it.
absl::StatusOr<std::unique_ptr<torch::inductor::AOTIModelContainerRunner>> LoadPackage(
    const std::string& folder, const std::string& device_name, c10::Device device);

// A package's inputs and outputs in its order: the name of each, "" where it has none.
struct PackageTensors {
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
};
absl::StatusOr<PackageTensors> TensorsOf(torch::inductor::AOTIModelContainerRunner& runner);

// Opens an AOTInductor package (`.pt2`) that was unpacked into `command.folder` and checks, before
// any of its code is loaded, the device and the CPU instruction set that it was compiled for.
// `command` must outlive the engine, and the folder's files must stay until Prepare() has returned.
// An error says what is wrong.
//
// A package checks nothing itself unless it is told to before its first run. The count of its
// inputs is checked here against its call specification; types and shapes by its own checks, which
// are always on where the config leaves a dimension open. They aren't where all is fixed, because
// most packages refuse batches of one row then, though they run them
// (aot_inductor.check_lowerbound): there the caller tries CheckInputs() in a process of its own,
// and the config is trusted after.
absl::StatusOr<std::unique_ptr<Engine>> OpenAotInductor(const LoadCommand& command);

}  // namespace millrace
