// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/input_spec.h"
#include "client/cli/session.h"
#include "client/cli/tensor_json.h"

namespace millrace {
inline namespace client {
namespace {

using Json = nlohmann::ordered_json;

struct InferOptions {
  std::string model;
  std::string version;
  std::string id;
  InputSpecs inputs;
  std::vector<std::string> outputs;
  std::string output_dir;
  double timeout_seconds = 60;
};

// Where an output is saved. Its name is the server's, so a slash in it must not lead elsewhere.
std::string OutputPath(const std::string& directory, std::string name) {
  for (char& letter : name) {
    if (letter == '/') letter = '_';
  }
  return absl::StrCat(directory, "/", name, ".npy");
}

absl::StatusOr<Json> ToJson(const Response& response, const std::string& output_dir) {
  Json json = {{"model", response.model}, {"version", response.version}, {"id", response.id}};
  json["outputs"] = Json::array();
  for (const Tensor& output : response.outputs) {
    auto entry = output_dir.empty() ? absl::StatusOr<Json>(ToJson(output))
                                    : SaveOutput(output, OutputPath(output_dir, output.name));
    if (!entry.ok()) return entry.status();
    json["outputs"].push_back(*std::move(entry));
  }
  return json;
}

int Run(const Session& session, const InferOptions& options) {
  const auto client = session.Connect();
  if (absl::IsInvalidArgument(client.status())) return session.Fail(client.status(), kBadArguments);
  if (!client.ok()) return session.Fail(client.status());
  const CallOptions call{.timeout = absl::Seconds(options.timeout_seconds)};
  const auto metadata = (*client)->DescribeModel(options.model, options.version, call);
  if (!metadata.ok()) return session.Fail(metadata.status());
  auto inputs = ReadInputs(options.inputs, *metadata);
  if (!inputs.ok()) return session.Fail(inputs.status(), kBadArguments);
  const auto response = (*client)->Infer({.model = options.model,
                                          .version = options.version,
                                          .id = options.id,
                                          .inputs = *std::move(inputs),
                                          .outputs = options.outputs},
                                         call);
  if (!response.ok()) return session.Fail(response.status());
  const auto json = ToJson(*response, options.output_dir);
  if (!json.ok()) return session.Fail(json.status(), kBadArguments);
  session.out << ToText(*json) << "\n";
  return kSuccess;
}

}  // namespace

void AddInferCommand(Session& session) {
  const auto options = std::make_shared<InferOptions>();
  CLI::App* command = session.AddCommand(
      "infer", "Send one request; prints the response as one line of JSON",
      "  millrace infer adder --input A='[1, 2, 3]' --input B='[4, 5, 6]'\n"
      "  millrace infer classifier --input @picture.npy --output-dir results\n"
      "  millrace infer detector --input @frame.bin --shape 1,576,768,3 --dtype UINT8\n"
      "  millrace infer tagger --input words=@words.json --timeout 5\n\n"
      "A model with one input needs no NAME=. Datatype, raw files' shapes and a missing first\n"
      "dimension are taken from the model where nothing else is said.");
  command->add_option("model", options->model, "The model's name")->required();
  command
      ->add_option("-i,--input", options->inputs.inputs,
                   "NAME=VALUE; VALUE is JSON, @file.json, @file.npy or @file with raw bytes")
      ->required()
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--shape", options->inputs.shapes, "NAME=1,3,224,224")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--dtype", options->inputs.datatypes, "NAME=FP32")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("-o,--output", options->outputs, "An output wanted; default: all")
      ->take_all()
      ->allow_extra_args(false);
  command
      ->add_option("--output-dir", options->output_dir,
                   "Save the outputs here as NAME.npy, instead of printing their elements")
      ->check(CLI::ExistingDirectory);
  command->add_option("--model-version", options->version, "Default: the newest one ready");
  command->add_option("--id", options->id, "Comes back in the response");
  command->add_option("--timeout", options->timeout_seconds, "Seconds, for the whole call")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->callback([&session, options] { session.exit_code = Run(session, *options); });
}

}  // namespace client
}  // namespace millrace
