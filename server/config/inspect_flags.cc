// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/config/inspect_flags.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/config/flag_kinds.h"

namespace millrace {
namespace {

constexpr const char* kTypes[] = {"BOOL",  "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
                                  "INT32", "INT64", "FP16",   "BF16",   "FP32",   "FP64"};

// "3x224x224"; false where it isn't of that form.
bool ParseDims(const std::string& text, std::vector<int64_t>* dims) {
  dims->clear();
  for (const absl::string_view part : absl::StrSplit(text, 'x')) {
    int64_t size = 0;
    if (!absl::SimpleAtoi(part, &size) || (size < 1 && size != -1)) return false;
    dims->push_back(size);
  }
  return dims->size() <= 8;
}

}  // namespace

std::string ParseInputFlag(const std::string& text, InputFlag* input) {
  std::vector<std::string> parts = absl::StrSplit(text, ':');
  *input = {};
  input->data_type = parts.back();
  parts.pop_back();
  if (input->data_type == "STRING" || input->data_type == "BYTES") {
    return absl::StrCat("'", text,
                        "': strings are no tensors, so no model of PyTorch takes them; let the "
                        "model take numbers, such as the tokens' INT64");
  }
  if (std::find(std::begin(kTypes), std::end(kTypes), input->data_type) == std::end(kTypes)) {
    return absl::StrCat("'", text, "' ends in no data type; expected [NAME:][DIMS:]TYPE such as ",
                        "x:3x224x224:FP32, with one of BOOL, UINT8 to UINT64, INT8 to INT64, FP16, "
                        "BF16, FP32 and FP64");
  }
  if (!parts.empty() && ParseDims(parts.back(), &input->dims)) {
    parts.pop_back();
  } else if (parts.size() > 1) {
    return absl::StrCat("'", text, "': '", parts.back(),
                        "' are no dims; expected up to 8 sizes such as 3x224x224, without the "
                        "batch dimension, -1 for any size");
  } else {
    input->dims.clear();
  }
  if (parts.size() > 1 || (parts.size() == 1 && parts[0].empty())) {
    return absl::StrCat("'", text, "' is not of the form [NAME:][DIMS:]TYPE");
  }
  if (!parts.empty()) input->name = parts[0];
  return "";
}

CLI::App* AddInspectCommand(CLI::App& app, InspectConfig& config) {
  CLI::App* command = app.add_subcommand(
      "inspect", "Find out what a model takes and returns, and write its config.pbtxt");
  command->footer(
      "Examples:\n"
      "  millrace inspect net.pt --input 3x224x224:FP32         # dims without the batch "
      "dimension\n"
      "  millrace inspect net.pt --input ids:-1:INT64 --input mask:-1:BOOL   # -1 is any size\n"
      "  millrace inspect net.pt2 --into models/net             # writes models/net for the "
      "server\n\n"
      "The model runs shut in, as it would in the server, with zeros and random values.\n"
      "Exit codes: 0 it can be served, 1 bad arguments, 3 it can't, with the reason");
  command->add_option("model", config.model, "The model's file: TorchScript, or .pt2 (AOTInductor)")
      ->required();
  command
      ->add_option_function<std::vector<std::string>>(
          "--input",
          [&config](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              const std::string error = ParseInputFlag(text, &config.inputs.emplace_back());
              if (!error.empty()) throw CLI::ValidationError("--input", error);
            }
          },
          "What the model takes, where its file doesn't tell, without the batch dimension; may be "
          "given several times, in the order of forward's arguments where NAME is left out")
      ->type_name("[NAME:][DIMS:]TYPE")
      ->allow_extra_args(false);
  command
      ->add_option("--into", config.into,
                   "Write the model and its config.pbtxt to this folder, <repository>/<name>")
      ->type_name("DIR");
  command->add_flag("--force", config.force, "Replace what is in that folder");
  command
      ->add_option("--max-batch", config.max_batch_size,
                   "The most rows in a batch; default: 8, or what the package says")
      ->type_name("ROWS")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command->add_flag("--json", config.json, "Print a JSON object");
  AddDuration(*command, "--timeout", &config.timeout, "How long the inspection may take");
  AddWorkerProgram(*command, &config.worker_program);
  AddSandbox(*command, &config.sandbox);
  return command;
}

}  // namespace millrace
