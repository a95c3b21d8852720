// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/model_inspector.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <torch/version.h>

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status.h"
#include "server/inference/shape.h"
#include "server/worker/aoti_engine.h"
#include "server/worker/batch_check.h"
#include "server/worker/model_error.h"
#include "server/worker/opening.h"
#include "server/worker/process.h"
#include "server/worker/sandbox.h"
#include "server/worker/tensors.h"
#include "server/worker/torchscript_engine.h"

namespace millrace {
namespace {

constexpr size_t kMostMessageBytes = 1000;  // Of what a model says, so that a reply stays small.
constexpr int64_t kMostTriedRows = 3;
constexpr int64_t kDefaultRows = 8;    // Of a model that sets no limit itself,
constexpr int64_t kMostOwnRows = 128;  // and the largest limit of its own that is taken.
// Of dims that may have any size.
constexpr int64_t kUsualSize = 16;
constexpr int64_t kOtherSize = 24;
constexpr uint64_t kSeeds[] = {1, 2, 0};

std::string RowsText(int64_t rows) {
  if (rows == 0) return "without a batch dimension";
  return absl::StrCat("with ", rows, rows == 1 ? " row" : " rows");
}

// What TorchScript's interpreter says last is why a model fails; what it says before is where.
absl::string_view ReasonIn(absl::string_view message) {
  constexpr absl::string_view kMark = "\nRuntimeError: ";
  const size_t at = message.rfind(kMark);
  return at == absl::string_view::npos ? message : message.substr(at + kMark.size());
}

absl::Status Short(const absl::Status& status) {
  return absl::Status(status.code(), Shortened(std::string(status.message()), kMostMessageBytes));
}

// Names that a config can use: the model's own, and places for those that have none or share one.
std::vector<std::string> ConfigNames(const std::string& prefix,
                                     const std::vector<std::string>& names) {
  std::vector<std::string> result;
  for (size_t i = 0; i < names.size(); ++i) {
    const bool usable = !names[i].empty() && std::count(names.begin(), names.end(), names[i]) == 1;
    result.push_back(usable ? names[i] : absl::StrCat(prefix, i));
  }
  return result;
}

// "--input x:3x224x224:FP32", for each of the names.
std::string ExampleOf(const std::vector<std::string>& names) {
  return absl::StrJoin(names, " ", [](std::string* out, const std::string& name) {
    absl::StrAppend(out, "--input ", name, ":3x224x224:FP32");
  });
}

// "forward(Tensor x, Tensor? mask=None) -> Tensor", without self.
std::string TextOf(const c10::FunctionSchema& schema) {
  std::vector<std::string> arguments;
  for (size_t i = 1; i < schema.arguments().size(); ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    arguments.push_back(absl::StrCat(argument.type()->str(), " ", argument.name(),
                                     argument.default_value() ? "=…" : ""));
  }
  std::vector<std::string> returns;
  for (const c10::Argument& value : schema.returns()) returns.push_back(value.type()->str());
  return absl::StrCat("forward(", absl::StrJoin(arguments, ", "), ") -> ",
                      absl::StrJoin(returns, ", "));
}

absl::StatusOr<std::vector<TensorSpec>> SpecsOf(const Returned& returned) {
  std::vector<std::string> names = returned.names;
  names.resize(returned.tensors.size());
  names = ConfigNames("OUTPUT__", names);
  if (names.empty() || names.size() > kMostTensors) {
    return absl::FailedPreconditionError(
        absl::StrCat("the model returns ", names.size(), " tensors; expected 1 to ", kMostTensors));
  }
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < names.size(); ++i) {
    const at::Tensor& tensor = returned.tensors[i];
    const std::optional<DataType> type =
        tensor.defined() ? ToDataType(tensor.scalar_type()) : std::nullopt;
    if (!type || tensor.dim() > static_cast<int64_t>(kMostDims)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "output '", names[i], "' is ", Describe(tensor),
          ", which can't be sent: expected one of "
          "BOOL, INT8 to INT64, UINT8 to UINT64, FP16, BF16, FP32 and FP64, of at most ",
          kMostDims, " dimensions"));
    }
    specs.push_back({names[i], *type, Shape(tensor.sizes().begin(), tensor.sizes().end())});
  }
  return specs;
}

}  // namespace

absl::Status ModelInspector::Run() {
  NameProcess("inspector");
  IgnoreStopSignals();
  VolunteerForOomKiller();
  MILLRACE_ASSIGN_OR_RETURN(const ControlMessage message, control_.Receive());
  if (message.fds.size() != 1) {
    return absl::InternalError("An inspect command must bring the model file.");
  }
  MILLRACE_ASSIGN_OR_RETURN(command_, FromJson<InspectCommand>(message.text));
  trial_.mode.engine = command_.engine;
  trial_.sandbox = command_.sandbox;
  trial_.folder = command_.folder;
  trial_.memory_limit_bytes = command_.memory_limit_bytes;
  trial_.server_pid = command_.server_pid;
  InspectedReply reply;
  Sandbox sandbox({.mode = command_.sandbox, .on_gpu = false, .folder = command_.folder});
  const int model_fd = message.fds[0].get();
  MILLRACE_RETURN_IF_ERROR(Tell("looking at the file"));
  reply.status = ShutInToOpen(trial_, model_fd, sandbox);
  if (reply.status.ok()) {
    absl::StatusOr<Inspection> inspection = Inspect(model_fd);
    reply.status = Short(inspection.status());
    if (inspection.ok()) reply.inspection = *std::move(inspection);
  }
  reply.warnings = sandbox.gaps();
  return control_.Send(ToJson(reply));
}

absl::Status ModelInspector::Tell(std::string stage) const {
  InspectedReply reply;
  reply.stage = std::move(stage);
  return control_.Send(ToJson(reply));
}

absl::StatusOr<Inspection> ModelInspector::Inspect(int model_fd) {
  found_.engine = command_.engine;
  found_.libtorch_version = TORCH_VERSION;
  MILLRACE_RETURN_IF_ERROR(Tell("loading it"));
  MILLRACE_RETURN_IF_ERROR(command_.engine == EngineKind::kTorchScript ? OpenScript(model_fd)
                                                                       : OpenPackage());
  MILLRACE_RETURN_IF_ERROR(OpenTrial());
  if (ThreadCount() > 1) {
    return absl::FailedPreconditionError(
        "the model starts threads while it is loaded, so it can't be served");
  }
  MILLRACE_RETURN_IF_ERROR(FindOutputs());
  engine_.reset();
  MILLRACE_RETURN_IF_ERROR(Verify());
  return std::move(found_);
}

absl::StatusOr<std::unique_ptr<Engine>> ModelInspector::MakeEngine(const LoadCommand& command,
                                                                   Notes& notes) {
  if (module_) return OpenTorchScript(command, *module_, notes);
  return OpenAotInductor(command);
}

absl::Status ModelInspector::OpenTrial() {
  trial_.inputs.clear();
  for (const Candidate& candidate : candidates_) trial_.inputs.push_back(candidate.spec);
  Notes ignored;  // They come again when the whole is checked.
  MILLRACE_ASSIGN_OR_RETURN(engine_, MakeEngine(trial_, ignored));
  return engine_->Prepare(c10::Device(c10::kCPU), ignored);
}

// ---- What the file tells ----

std::vector<DimRange> ModelInspector::RangesOf(const Shape& shape) {
  std::vector<DimRange> ranges;
  for (const int64_t size : shape) {
    ranges.push_back(size < 0 ? DimRange() : DimRange{.least = size, .most = size});
  }
  return ranges;
}

absl::StatusOr<std::vector<std::optional<TensorSpec>>> ModelInspector::GivenByPlace(
    const std::vector<std::string>& names) const {
  std::vector<std::optional<TensorSpec>> places(names.size());
  const auto error = [&](const TensorSpec& input, const auto&... pieces) {
    return absl::InvalidArgumentError(
        absl::StrCat("the given input '", input.name, "' ", pieces..., "; the model takes ",
                     names.empty() ? "none" : absl::StrJoin(names, ", ")));
  };
  for (const TensorSpec& input : command_.inputs) {
    if (input.name.empty()) continue;
    const auto at = std::find(names.begin(), names.end(), input.name);
    if (at == names.end()) return error(input, "is none of the model's");
    auto& place = places[static_cast<size_t>(at - names.begin())];
    if (place) return error(input, "is given twice");
    place = input;
  }
  for (const TensorSpec& input : command_.inputs) {
    if (!input.name.empty()) continue;
    const auto free = std::find(places.begin(), places.end(), std::nullopt);
    if (free == places.end()) return error(input, "is one too many");
    *free = input;
    (*free)->name = names[static_cast<size_t>(free - places.begin())];
  }
  return places;
}

absl::Status ModelInspector::OpenScript(int model_fd) {
  MILLRACE_ASSIGN_OR_RETURN(module_, ReadTorchScript(model_fd));
  MILLRACE_ASSIGN_OR_RETURN(const c10::FunctionSchema schema, SchemaOf(*module_));
  found_.arguments = TextOf(schema);
  std::vector<std::string> names;
  std::vector<bool> needed;
  std::vector<std::string> left_out;
  for (size_t i = 1; i < schema.arguments().size(); ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    if (c10::TensorType::get()->isSubtypeOf(*argument.type())) {
      names.push_back(argument.name());
      needed.push_back(!argument.default_value());
    } else if (!argument.default_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the argument '", argument.name(), "' of ", found_.arguments, " is of type ",
          argument.type()->annotation_str(),
          "; only tensors can be given to a model: let forward take a tensor there, or give the "
          "argument a default value"));
    } else {
      left_out.push_back(argument.name());
    }
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto given, GivenByPlace(names));
  std::vector<std::string> missing;
  for (size_t i = 0; i < names.size(); ++i) {
    if (given[i]) {
      candidates_.push_back({.spec = *given[i], .dims = RangesOf(given[i]->dims), .batch = {}});
    } else if (needed[i]) {
      missing.push_back(names[i]);
    } else {
      left_out.push_back(names[i]);
    }
  }
  if (!missing.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "TorchScript doesn't tell the shape and type of what ", found_.arguments,
        " takes; say them, without the batch dimension, for example: ", ExampleOf(missing)));
  }
  if (candidates_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("no tensor is given to ", found_.arguments,
                                                   "; a model that is served takes at least one"));
  }
  if (!left_out.empty()) {
    found_.notes.push_back(
        absl::StrCat("these arguments keep their default values: ", absl::StrJoin(left_out, ", ")));
  }
  return absl::OkStatus();
}

absl::Status ModelInspector::OpenPackage() {
  MILLRACE_ASSIGN_OR_RETURN(PackageMetadata metadata, ReadPackageMetadata(command_.folder));
  found_.instruction_set = metadata["AOTI_CPU_ISA"];
  MILLRACE_RETURN_IF_ERROR(OpenAotInductor(trial_).status());  // Is it for this machine?
  const c10::Device cpu(c10::kCPU);
  MILLRACE_ASSIGN_OR_RETURN(const auto runner, LoadPackage(command_.folder, "cpu", cpu));
  MILLRACE_ASSIGN_OR_RETURN(const PackageTensors tensors, TensorsOf(*runner));
  MILLRACE_RETURN_IF_ERROR(Tell("asking it for its inputs"));
  MILLRACE_ASSIGN_OR_RETURN(const auto told, AskForInputs(*runner, tensors.inputs.size()));
  return TakeTold(ConfigNames("INPUT__", tensors.inputs), told);
}

absl::Status ModelInspector::TakeTold(const std::vector<std::string>& names,
                                      const std::vector<PackageInput>& told) {
  // Which dimension is the batch's can't be told, but a first one that is open in all of them.
  may_batch_ = std::all_of(told.begin(), told.end(), [](const PackageInput& input) {
    return !input.dims.empty() && input.dims[0].is_open();
  });
  MILLRACE_ASSIGN_OR_RETURN(const auto given, GivenByPlace(names));
  for (size_t i = 0; i < told.size(); ++i) {
    std::vector<DimRange> dims = told[i].dims;
    Candidate candidate = {.spec = {names[i], told[i].data_type, {}}, .dims = {}, .batch = {}};
    if (may_batch_) {
      candidate.batch = dims[0];
      most_rows_ = std::min(most_rows_, dims[0].most);
      dims.erase(dims.begin());
    }
    candidate.dims = dims;
    for (const DimRange& dim : dims) candidate.spec.dims.push_back(dim.is_open() ? -1 : dim.least);
    if (given[i]) {
      const std::vector<DimRange> asked = RangesOf(given[i]->dims);
      const bool fits =
          given[i]->data_type == told[i].data_type &&
          std::equal(asked.begin(), asked.end(), dims.begin(), dims.end(),
                     [](const DimRange& a, const DimRange& b) {
                       return a.is_open() ? b.is_open() : a.least >= b.least && a.most <= b.most;
                     });
      if (!fits) {
        return absl::InvalidArgumentError(
            absl::StrCat("the given input '", names[i], "' is ", WireName(given[i]->data_type), " ",
                         ToString(given[i]->dims), ", but the package was compiled for ",
                         WireName(told[i].data_type), " ", ToString(candidate.spec.dims)));
      }
      for (size_t k = 0; k < dims.size(); ++k) {
        if (!asked[k].is_open()) candidate.dims[k] = asked[k];
      }
      candidate.spec.dims = given[i]->dims;
    }
    candidates_.push_back(std::move(candidate));
  }
  found_.is_certain = true;
  return absl::OkStatus();
}

// ---- What trying tells ----

bool ModelInspector::has_open_dims() const {
  return std::any_of(trial_.inputs.begin(), trial_.inputs.end(),
                     [](const TensorSpec& input) { return !ElementCount(input.dims); });
}

std::vector<int64_t> ModelInspector::SizesOf(const Candidate& candidate, const Trial& trial) const {
  std::vector<int64_t> sizes;
  if (trial.rows > 0) sizes.push_back(trial.rows);
  for (const DimRange& dim : candidate.dims) {
    const int64_t usual = std::clamp(kUsualSize, dim.least, dim.most);
    int64_t other = std::clamp(kOtherSize, dim.least, dim.most);
    if (other == usual && dim.is_open()) other += usual > dim.least ? -1 : 1;
    sizes.push_back(trial.wide ? other : usual);
  }
  return sizes;
}

absl::StatusOr<std::vector<TensorSpec>> ModelInspector::Try(const Trial& trial) {
  const absl::StatusOr<std::string> text = AskChild([&]() -> absl::StatusOr<std::string> {
    return CatchModelErrors([&]() -> absl::StatusOr<std::string> {
      const c10::InferenceMode guard;
      at::manual_seed(trial.seed);
      std::vector<at::Tensor> inputs;
      for (const Candidate& candidate : candidates_) {
        inputs.push_back(
            MakeValues(candidate.spec.data_type, SizesOf(candidate, trial), trial.seed != 0));
      }
      MILLRACE_ASSIGN_OR_RETURN(const Returned returned, engine_->RunUndeclared(std::move(inputs)));
      InspectedReply reply;
      MILLRACE_ASSIGN_OR_RETURN(reply.inspection.outputs, SpecsOf(returned));
      return ToJson(reply);
    });
  });
  if (!text.ok()) {
    return Short(absl::Status(text.status().code(), ReasonIn(text.status().message())));
  }
  MILLRACE_ASSIGN_OR_RETURN(InspectedReply reply, FromJson<InspectedReply>(*text));
  return std::move(reply.inspection.outputs);
}

absl::StatusOr<std::vector<ObservedRun>> ModelInspector::TryRows(int64_t rows) {
  MILLRACE_RETURN_IF_ERROR(Tell(absl::StrCat("running it ", RowsText(rows))));
  std::vector<ObservedRun> runs;
  absl::Status first_error;
  for (const bool wide : {false, true}) {
    if (wide && !has_open_dims()) break;
    bool succeeded = false;
    for (const uint64_t seed : kSeeds) {
      absl::StatusOr<std::vector<TensorSpec>> outputs =
          Try({.rows = rows, .wide = wide, .seed = seed});
      if (outputs.ok()) {
        succeeded = true;
        runs.push_back({.rows = rows, .outputs = *std::move(outputs)});
      } else if (first_error.ok()) {
        first_error = outputs.status();
      }
    }
    if (runs.empty()) break;
    if (wide && !succeeded && rows <= 1) {
      found_.notes.push_back(absl::StrCat(
          "it runs with ", kUsualSize, " for its open dimensions, but not with ", kOtherSize, ": ",
          first_error.message(), "; declare the sizes that it takes"));
    }
  }
  if (!runs.empty()) return runs;
  return Annotate(first_error, absl::StrCat("the model fails when it runs ", RowsText(rows)));
}

absl::Status ModelInspector::FindOutputs() {
  if (!may_batch_) return FindUnbatchedOutputs(absl::OkStatus());
  const absl::Status batched = FindBatchedOutputs();
  if (batched.ok() || absl::IsInvalidArgument(batched)) return batched;
  return FindUnbatchedOutputs(batched);
}

absl::Status ModelInspector::FindBatchedOutputs() {
  const int64_t asked = command_.max_batch_size;
  if (asked > most_rows_) {
    return absl::InvalidArgumentError(absl::StrCat("the model takes at most ", most_rows_,
                                                   " rows, but ", asked, " are asked for"));
  }
  std::vector<ObservedRun> all;
  absl::Status failed;
  for (int64_t rows = 1; rows <= std::min(kMostTriedRows, most_rows_) && failed.ok(); ++rows) {
    const absl::StatusOr<std::vector<ObservedRun>> runs = TryRows(rows);
    failed = runs.status();
    if (runs.ok()) all.insert(all.end(), runs->begin(), runs->end());
  }
  if (all.empty()) return failed;
  const int64_t own = most_rows_ <= kMostOwnRows ? most_rows_ : kDefaultRows;
  MILLRACE_RETURN_IF_ERROR(Settle(all, !failed.ok() ? all.back().rows : asked > 0 ? asked : own));
  if (!failed.ok()) {
    found_.notes.push_back(absl::StrCat("batches are limited: ", failed.message()));
  }
  return absl::OkStatus();
}

absl::Status ModelInspector::FindUnbatchedOutputs(const absl::Status& because) {
  if (command_.engine == EngineKind::kAotInductor && may_batch_) {
    for (Candidate& candidate : candidates_) {
      candidate.dims.insert(candidate.dims.begin(), candidate.batch);
      candidate.spec.dims.insert(candidate.spec.dims.begin(), -1);
    }
    MILLRACE_RETURN_IF_ERROR(OpenTrial());
  }
  for (const Candidate& candidate : candidates_) {
    if (!candidate.dims.empty()) continue;
    return because.ok() ? absl::InvalidArgumentError(absl::StrCat(
                              "input '", candidate.spec.name,
                              "' is a tensor without dimensions, which can't be served; let "
                              "forward take one of at least one dimension there"))
                        : because;
  }
  const absl::StatusOr<std::vector<ObservedRun>> runs = TryRows(0);
  if (!runs.ok() && because.ok()) return runs.status();
  if (!runs.ok()) {
    return absl::Status(runs.status().code(),
                        absl::StrCat(because.message(), "\n", runs.status().message()));
  }
  if (!because.ok()) {
    found_.notes.push_back(absl::StrCat("it has no batch dimension: ", because.message()));
  }
  const bool single = std::all_of(candidates_.begin(), candidates_.end(), [](const Candidate& c) {
    return c.dims[0].least == 1 && !c.dims[0].is_open();
  });
  if (single && module_) {
    found_.notes.push_back(
        "the first dimension of what it takes is 1: if that is the batch's, leave it out of "
        "--input");
  }
  return Settle(*runs, 0);
}

absl::Status ModelInspector::Settle(const std::vector<ObservedRun>& runs, int64_t max_batch_size) {
  MILLRACE_ASSIGN_OR_RETURN(std::vector<TensorSpec> outputs, MergeOutputs(runs));
  for (const TensorSpec& output : outputs) {
    if (max_batch_size == 0 && output.dims.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("output '", output.name,
                       "' is a tensor without dimensions, which can't be served; "
                       "return value.reshape(1), or a row for each row of the inputs"));
    }
    if (!has_open_dims() && !ElementCount(output.dims)) {
      found_.notes.push_back(absl::StrCat("the size of output '", output.name,
                                          "' depends on the values of the input"));
    }
  }
  found_.inputs = trial_.inputs;
  found_.outputs = std::move(outputs);
  found_.max_batch_size = max_batch_size;
  return absl::OkStatus();
}

absl::Status ModelInspector::Verify() {
  MILLRACE_RETURN_IF_ERROR(Tell("checking what was found"));
  LoadCommand command = trial_;
  command.outputs = found_.outputs;
  command.max_batch_size = found_.max_batch_size;
  const int64_t most = std::max<int64_t>(1, command.max_batch_size);
  for (const int64_t rows : std::set<int64_t>{1, std::min<int64_t>(2, most), most}) {
    WarmupSample sample = {.rows = rows, .count = 1, .inputs = {}, .declared = false};
    for (const Candidate& candidate : candidates_) {
      const std::vector<int64_t> sizes = SizesOf(candidate, {});
      sample.inputs.push_back(
          {.name = candidate.spec.name, .dims = Shape(sizes.begin(), sizes.end()), .random = true});
    }
    command.warmup.push_back(std::move(sample));
  }
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, MakeEngine(command, found_.notes));
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model,
                            Model::Over(command, /*warmup_data=*/{}, std::move(engine)));
  MILLRACE_RETURN_IF_ERROR(model->Prepare(c10::Device(c10::kCPU), found_.notes));
  MILLRACE_RETURN_IF_ERROR(model->CheckConfig());
  MILLRACE_RETURN_IF_ERROR(Annotate(RunAsServed(*model), "running it as it is served"));
  if (command.max_batch_size < 2) return absl::OkStatus();
  MILLRACE_RETURN_IF_ERROR(Tell("comparing rows alone with rows in a batch"));
  found_.batching = RunInChild([&] {
    Notes ignored;  // Known from the run before.
    const absl::Status warm = model->WarmUp(ignored);
    return warm.ok() ? CheckRowsAreIndependent(command, *model) : warm;
  });
  if (command_.engine == EngineKind::kAotInductor) DoubtBatching();
  return absl::OkStatus();
}

absl::Status ModelInspector::RunAsServed(Model& model) {
  MILLRACE_ASSIGN_OR_RETURN(
      const std::string text, AskChild([&]() -> absl::StatusOr<std::string> {
        Notes notes;
        MILLRACE_RETURN_IF_ERROR(model.WarmUp(notes));
        InspectedReply reply;
        for (std::string& note : notes) {
          reply.inspection.notes.push_back(Shortened(std::move(note), kMostMessageBytes));
        }
        return ToJson(reply);
      }));
  MILLRACE_ASSIGN_OR_RETURN(const InspectedReply reply, FromJson<InspectedReply>(text));
  found_.notes.insert(found_.notes.end(), reply.inspection.notes.begin(),
                      reply.inspection.notes.end());
  return absl::OkStatus();
}

void ModelInspector::DoubtBatching() {
  if (found_.batching.ok()) return;
  found_.notes.push_back(absl::StrCat(
      "its first dimension is open, but isn't known to be a batch's: ", found_.batching.message()));
  found_.batching = absl::OkStatus();
  found_.max_batch_size = 0;
  for (auto* const specs : {&found_.inputs, &found_.outputs}) {
    for (TensorSpec& spec : *specs) spec.dims.insert(spec.dims.begin(), -1);
  }
}

}  // namespace millrace
