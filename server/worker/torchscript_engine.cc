// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/torchscript_engine.h"

#include <ATen/autocast_mode.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/passes/autocast.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/serialization/import.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status.h"
#include "server/worker/fd_reader.h"
#include "server/worker/model_error.h"
#include "server/worker/name_map.h"
#include "server/worker/package.h"
#include "server/worker/tensors.h"

namespace millrace {
namespace {

using torch::jit::Module;

// Which of forward's arguments the config's inputs are.
struct Arguments {
  std::vector<size_t> positions;     // Per input of the config.
  std::vector<c10::IValue> initial;  // Up to the last of them: default values.
};

absl::Status CheckArgument(const c10::Argument& argument, bool given) {
  if (!given && !argument.default_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "forward's argument '", argument.name(),
        "' has no default value and no input of the config is meant for it; declare it"));
  }
  if (given && !c10::TensorType::get()->isSubtypeOf(*argument.type())) {
    return absl::InvalidArgumentError(
        absl::StrCat("forward's argument '", argument.name(), "' is of type ",
                     argument.type()->annotation_str(), "; only tensors can be given to a model"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Arguments> MapArguments(const c10::FunctionSchema& schema,
                                       const std::vector<TensorSpec>& inputs, Notes& notes) {
  std::vector<std::string> names;  // Without self.
  for (size_t i = 1; i < schema.arguments().size(); ++i) {
    names.push_back(schema.arguments()[i].name());
  }
  MILLRACE_ASSIGN_OR_RETURN(NameMap map, MapNames("INPUT__", NamesOf(inputs), names));
  if (map.by_order) {
    notes.push_back(absl::StrCat("no input is named after an argument of forward(",
                                 absl::StrJoin(names, ", "),
                                 "): they are given in the config's order"));
  }
  std::vector<bool> given(names.size());
  for (const size_t position : map.positions) given[position] = true;
  Arguments arguments = {.positions = std::move(map.positions), .initial = {}};
  for (size_t i = 0; i < names.size(); ++i) {
    const c10::Argument& argument = schema.arguments()[i + 1];
    MILLRACE_RETURN_IF_ERROR(CheckArgument(argument, given[i]));
    if (given[i]) arguments.initial.resize(i + 1);
  }
  for (size_t i = 0; i < arguments.initial.size(); ++i) {
    if (!given[i]) arguments.initial[i] = *schema.arguments()[i + 1].default_value();
  }
  return arguments;
}

absl::Status NotTensors(const c10::IValue& result) {
  return absl::FailedPreconditionError(
      absl::StrCat("the model returns ", result.type()->annotation_str(),
                   "; expected a tensor, or a tuple, a list or a dict (by name) of tensors"));
}

absl::StatusOr<Returned> TakeApart(const c10::IValue& result) {
  Returned returned;
  if (result.isTensor()) {
    returned.tensors.push_back(result.toTensor());
  } else if (result.isTuple()) {
    for (const c10::IValue& element : result.toTupleRef().elements()) {
      if (!element.isTensor()) return NotTensors(result);
      returned.tensors.push_back(element.toTensor());
    }
  } else if (result.isTensorList()) {
    returned.tensors = result.toTensorVector();
  } else if (result.isGenericDict()) {
    for (const auto& entry : result.toGenericDict()) {
      if (!entry.key().isString() || !entry.value().isTensor()) return NotTensors(result);
      returned.names.push_back(entry.key().toStringRef());
      returned.tensors.push_back(entry.value().toTensor());
    }
  } else {
    return NotTensors(result);
  }
  return returned;
}

// While it lives, this thread is one where autocast would take effect, in BF16.
class AutocastToBfloat16 {
 public:
  AutocastToBfloat16() {
    at::autocast::set_autocast_dtype(c10::kCPU, c10::ScalarType::BFloat16);
    at::autocast::set_autocast_enabled(c10::kCPU, true);
  }
  ~AutocastToBfloat16() { at::autocast::set_autocast_enabled(c10::kCPU, false); }
  AutocastToBfloat16(const AutocastToBfloat16&) = delete;
  AutocastToBfloat16& operator=(const AutocastToBfloat16&) = delete;
};

class TorchScriptEngine final : public Engine {
 public:
  TorchScriptEngine(const LoadCommand& command, Module module, Arguments arguments,
                    absl::StatusOr<NameMap> by_place)
      : command_(command),
        arguments_(std::move(arguments)),
        by_place_(std::move(by_place)),
        module_(std::move(module)) {
    for (const at::Tensor& tensor : module_.parameters()) weight_bytes_ += tensor.nbytes();
    for (const at::Tensor& tensor : module_.buffers()) weight_bytes_ += tensor.nbytes();
  }

  absl::Status Prepare(c10::Device device, Notes& notes) override {
    return CatchModelErrors([&]() -> absl::Status {
      if (device.is_cpu()) {
        mode_ = command_.mode;
      } else {
        module_.to(device);
      }
      if (mode_.channels_last) LayOutWeights();
      if (mode_.bfloat16) {
        ComputeInBfloat16();
      } else if (command_.optimize) {
        Optimize(notes);
      }
      forward_ = module_.get_method("forward");
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::vector<at::Tensor>> Run(std::vector<at::Tensor> inputs) override {
    MILLRACE_ASSIGN_OR_RETURN(Returned returned, RunUndeclared(std::move(inputs)));
    return Arrange(std::move(returned));
  }

  absl::StatusOr<Returned> RunUndeclared(std::vector<at::Tensor> inputs) override {
    return CatchModelErrors([&]() -> absl::StatusOr<Returned> {
      std::vector<c10::IValue> stack = arguments_.initial;
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (mode_.channels_last && inputs[i].dim() == 4) {
          inputs[i] = inputs[i].contiguous(c10::MemoryFormat::ChannelsLast);
        }
        stack[arguments_.positions[i]] = std::move(inputs[i]);
      }
      return TakeApart((*forward_)(std::move(stack)));
    });
  }

  size_t weight_bytes() const override { return weight_bytes_; }

 private:
  // A step that fails leaves the plain module.
  void Optimize(Notes& notes) {
    const absl::Status status = CatchModelErrors([&]() -> absl::Status {
      Module frozen = torch::jit::freeze(module_);
      // What follows would bring convolutions into a layout of oneDNN's.
      module_ = mode_.channels_last ? frozen : torch::jit::optimize_for_inference(frozen);
      return absl::OkStatus();
    });
    if (status.ok()) return;
    notes.push_back(absl::StrCat("freezing or optimising failed, so the plain module serves: ",
                                 status.message()));
  }

  // Before the module is frozen, which folds other layers into these weights.
  void LayOutWeights() {
    for (at::Tensor weight : module_.parameters()) {
      if (weight.dim() == 4) {
        weight.set_data(weight.contiguous(c10::MemoryFormat::ChannelsLast));
      }
    }
  }

  // Has the operators that gain by it (matrix products, convolutions) compute in BF16, as PyTorch's
  // autocast does: it converts what goes into these, and leaves what needs the precision in FP32.
  // The frozen weights are converted here, once.
  void ComputeInBfloat16() {
    module_ = torch::jit::freeze(module_);
    std::shared_ptr<torch::jit::Graph> graph = module_.get_method("forward").graph();
    {
      const AutocastToBfloat16 autocast;
      torch::jit::Autocast(graph);
    }
    torch::jit::ConstantPropagation(graph);
  }

  // An output in the type that the config declares.
  at::Tensor AtTheBoundary(at::Tensor output, DataType declared) const {
    const bool reduced = mode_.bfloat16 && declared == DataType::kFp32 &&
                         output.scalar_type() == c10::ScalarType::BFloat16;
    return reduced ? output.to(c10::ScalarType::Float) : output;
  }

  // Puts what the model returned into the order of the config's outputs.
  absl::StatusOr<std::vector<at::Tensor>> Arrange(Returned returned) const {
    const size_t count = command_.outputs.size();
    const auto error = [&](const auto&... pieces) {
      return absl::FailedPreconditionError(absl::StrCat(
          pieces..., "; the model returns ", Describe(returned.tensors, returned.names)));
    };
    if (returned.tensors.size() != count) {
      return error("the config declares ", count, " outputs, but the model returns ",
                   returned.tensors.size());
    }
    const bool named = !returned.names.empty();
    const absl::StatusOr<NameMap> map =
        named ? MapNames("OUTPUT__", NamesOf(command_.outputs), returned.names) : by_place_;
    if (!map.ok()) return error(map.status().message());
    if (named && map->by_order) return error("no output of the config is a key of the dict");
    std::vector<at::Tensor> outputs;
    outputs.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      outputs.push_back(AtTheBoundary(std::move(returned.tensors[map->positions[i]]),
                                      command_.outputs[i].data_type));
    }
    return outputs;
  }

  const LoadCommand& command_;
  const Arguments arguments_;
  const absl::StatusOr<NameMap> by_place_;  // For results without names.
  Module module_;
  std::optional<torch::jit::Method> forward_;
  ExecutionMode mode_;  // The command's on a CPU, else the plain one.
  size_t weight_bytes_ = 0;
};

}  // namespace

absl::StatusOr<Module> ReadTorchScript(int model_fd) {
  absl::StatusOr<Module> module = CatchModelErrors([&]() -> absl::StatusOr<Module> {
    Module read = torch::jit::load(std::make_shared<FdReader>(model_fd), c10::Device(c10::kCPU));
    read.eval();
    return read;
  });
  if (module.ok()) return module;
  return UnreadableFile(EngineKind::kTorchScript, module.status());
}

absl::StatusOr<c10::FunctionSchema> SchemaOf(const Module& module) {
  const std::optional<torch::jit::Method> forward = module.find_method("forward");
  if (!forward) return absl::InvalidArgumentError("the TorchScript module has no forward()");
  return forward->function().getSchema();
}

absl::StatusOr<std::unique_ptr<Engine>> OpenTorchScript(const LoadCommand& command, Module module,
                                                        Notes& notes) {
  MILLRACE_ASSIGN_OR_RETURN(const c10::FunctionSchema schema, SchemaOf(module));
  MILLRACE_ASSIGN_OR_RETURN(Arguments arguments, MapArguments(schema, command.inputs, notes));
  const std::vector<std::string> nameless(command.outputs.size());
  return std::make_unique<TorchScriptEngine>(
      command, std::move(module), std::move(arguments),
      MapNames("OUTPUT__", NamesOf(command.outputs), nameless));
}

}  // namespace millrace
