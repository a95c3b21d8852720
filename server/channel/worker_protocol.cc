// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/worker_protocol.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace millrace {

using Json = nlohmann::json;

// nlohmann::json finds these by argument-dependent lookup; the names are the library's.
NLOHMANN_JSON_SERIALIZE_ENUM(EngineKind, {{EngineKind::kTorchScript, "torchscript"},
                                          {EngineKind::kAotInductor, "aotinductor"}})
NLOHMANN_JSON_SERIALIZE_ENUM(ThreadWait,
                             {{ThreadWait::kPassive, "passive"}, {ThreadWait::kActive, "active"}})
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ExecutionMode, engine, bfloat16, channels_last, wait)
NLOHMANN_JSON_SERIALIZE_ENUM(SandboxMode, {{SandboxMode::kRequired, "required"},
                                           {SandboxMode::kOn, "on"},
                                           {SandboxMode::kOff, "off"}})

static std::vector<int64_t> ToVector(const Shape& shape) { return {shape.begin(), shape.end()}; }

static Shape ToShape(const Json& json) {
  const auto dims = json.get<std::vector<int64_t>>();
  return {dims.begin(), dims.end()};
}

static Json StatusToJson(const absl::Status& status) {
  return {{"code", static_cast<int>(status.code())}, {"message", std::string(status.message())}};
}

static absl::Status StatusFromJson(const Json& json) {
  return absl::Status(static_cast<absl::StatusCode>(json.at("code").get<int>()),
                      json.at("message").get<std::string>());
}

static void to_json(Json& json, const TensorSpec& spec) {
  json = {{"name", spec.name},
          {"data_type", static_cast<int>(spec.data_type)},
          {"dims", ToVector(spec.dims)}};
}

static void from_json(const Json& json, TensorSpec& spec) {
  spec.name = json.at("name");
  spec.data_type = static_cast<DataType>(json.at("data_type").get<int>());
  spec.dims = ToShape(json.at("dims"));
}

static void to_json(Json& json, const WarmupInput& input) {
  json = {{"name", input.name},
          {"dims", ToVector(input.dims)},
          {"random", input.random},
          {"data_offset", input.data_offset},
          {"data_rows", input.data_rows}};
}

static void from_json(const Json& json, WarmupInput& input) {
  input.name = json.at("name");
  input.dims = ToShape(json.at("dims"));
  input.random = json.at("random");
  input.data_offset = json.at("data_offset");
  input.data_rows = json.at("data_rows");
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(WarmupSample, rows, count, inputs, declared)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LoadCommand, mode, model_name, version, max_batch_size, inputs,
                                   outputs, optimize, inference_mode, flush_denormals,
                                   deterministic, inter_op_threads, warmup, further_batch_sizes,
                                   on_gpu, background, check_batching, load_only, sandbox, folder,
                                   memory_limit_bytes, server_pid)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ForkCommand, mailbox, cpus, threads, device_index, rehearses)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(InspectCommand, engine, inputs, max_batch_size, sandbox, folder,
                                   memory_limit_bytes, server_pid)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(WorkerDescription::Gpu, index, name, total_memory_bytes,
                                   free_memory_bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(WorkerDescription, libtorch_version, gpus)

static void to_json(Json& json, const LoadedReply& reply) {
  json = {{"status", StatusToJson(reply.status)},
          {"start_over", reply.start_over},
          {"notes", reply.notes},
          {"warnings", reply.warnings},
          {"warmup_ns", reply.warmup_ns},
          {"batching", StatusToJson(reply.batching)}};
}

static void from_json(const Json& json, LoadedReply& reply) {
  reply.status = StatusFromJson(json.at("status"));
  reply.start_over = json.at("start_over");
  reply.warnings = json.at("warnings").get<std::vector<std::string>>();
  reply.notes = json.at("notes").get<std::vector<std::string>>();
  reply.warmup_ns = json.at("warmup_ns").get<std::vector<int64_t>>();
  reply.batching = StatusFromJson(json.at("batching"));
}

static void to_json(Json& json, const ForkedReply& reply) {
  json = {{"status", StatusToJson(reply.status)}, {"pid", reply.pid}};
}

static void from_json(const Json& json, ForkedReply& reply) {
  reply.status = StatusFromJson(json.at("status"));
  reply.pid = json.at("pid");
}

static void to_json(Json& json, const ReadyReply& reply) {
  json = {{"status", StatusToJson(reply.status)},
          {"notes", reply.notes},
          {"warmup_ns", reply.warmup_ns}};
}

static void from_json(const Json& json, ReadyReply& reply) {
  reply.status = StatusFromJson(json.at("status"));
  reply.notes = json.at("notes").get<std::vector<std::string>>();
  reply.warmup_ns = json.at("warmup_ns").get<std::vector<int64_t>>();
}

static void to_json(Json& json, const Inspection& inspection) {
  json = {{"engine", inspection.engine},
          {"libtorch_version", inspection.libtorch_version},
          {"instruction_set", inspection.instruction_set},
          {"arguments", inspection.arguments},
          {"inputs", inspection.inputs},
          {"outputs", inspection.outputs},
          {"max_batch_size", inspection.max_batch_size},
          {"is_certain", inspection.is_certain},
          {"batching", StatusToJson(inspection.batching)},
          {"notes", inspection.notes}};
}

static void from_json(const Json& json, Inspection& inspection) {
  inspection.engine = json.at("engine").get<EngineKind>();
  inspection.libtorch_version = json.at("libtorch_version");
  inspection.instruction_set = json.at("instruction_set");
  inspection.arguments = json.at("arguments");
  inspection.inputs = json.at("inputs").get<std::vector<TensorSpec>>();
  inspection.outputs = json.at("outputs").get<std::vector<TensorSpec>>();
  inspection.max_batch_size = json.at("max_batch_size");
  inspection.is_certain = json.at("is_certain");
  inspection.batching = StatusFromJson(json.at("batching"));
  inspection.notes = json.at("notes").get<std::vector<std::string>>();
}

static void to_json(Json& json, const InspectedReply& reply) {
  json = {{"stage", reply.stage},
          {"status", StatusToJson(reply.status)},
          {"warnings", reply.warnings},
          {"inspection", reply.inspection}};
}

static void from_json(const Json& json, InspectedReply& reply) {
  reply.stage = json.at("stage");
  reply.status = StatusFromJson(json.at("status"));
  reply.warnings = json.at("warnings").get<std::vector<std::string>>();
  reply.inspection = json.at("inspection").get<Inspection>();
}

// Messages may quote a model's own bytes: what isn't UTF-8 is replaced, never thrown.
static std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string ToJson(const LoadCommand& command) { return Dump(Json(command)); }
std::string ToJson(const LoadedReply& reply) { return Dump(Json(reply)); }
std::string ToJson(const ForkCommand& command) { return Dump(Json(command)); }
std::string ToJson(const ForkedReply& reply) { return Dump(Json(reply)); }
std::string ToJson(const ReadyReply& reply) { return Dump(Json(reply)); }
std::string ToJson(const InspectCommand& command) { return Dump(Json(command)); }
std::string ToJson(const InspectedReply& reply) { return Dump(Json(reply)); }
std::string ToJson(const WorkerDescription& description) { return Dump(Json(description)); }

template <typename Message>
absl::StatusOr<Message> FromJson(const std::string& text) {
  try {
    return Json::parse(text).get<Message>();
  } catch (const Json::exception& error) {
    return absl::InternalError(absl::StrCat("A control message made no sense: ", error.what()));
  }
}

template absl::StatusOr<LoadCommand> FromJson(const std::string&);
template absl::StatusOr<LoadedReply> FromJson(const std::string&);
template absl::StatusOr<ForkCommand> FromJson(const std::string&);
template absl::StatusOr<ForkedReply> FromJson(const std::string&);
template absl::StatusOr<ReadyReply> FromJson(const std::string&);
template absl::StatusOr<InspectCommand> FromJson(const std::string&);
template absl::StatusOr<InspectedReply> FromJson(const std::string&);
template absl::StatusOr<WorkerDescription> FromJson(const std::string&);

bool IsLoadCommand(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return json.is_object() && json.contains("mode");
}

}  // namespace millrace
