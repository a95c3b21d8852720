// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/supported_fields.h"

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/strip.h"
#include "server/base/status.h"
#include "server/repository/names.h"

namespace millrace {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;
using Names = absl::flat_hash_set<std::string>;

// The fields that are acted on, by message and name. docs/models.md tells users the same.
bool IsSupported(const std::string& field) {
  static const Names* const names = new Names{
      "ModelConfig.name",
      "ModelConfig.platform",
      "ModelConfig.backend",
      "ModelConfig.default_model_filename",
      "ModelConfig.max_batch_size",
      "ModelConfig.input",
      "ModelConfig.output",
      "ModelConfig.version_policy",
      "ModelConfig.instance_group",
      "ModelConfig.dynamic_batching",
      "ModelConfig.model_warmup",
      "ModelConfig.parameters",
      "ModelConfig.ParametersEntry.key",
      "ModelConfig.ParametersEntry.value",
      "ModelConfig.millrace",
      "Millrace.batching",
      "Millrace.Batching.hold",
      "Millrace.Batching.overflow",
      "Millrace.Batching.starvation_guard_microseconds",
      "Millrace.Batching.shed_target_microseconds",
      "Millrace.Batching.shed_interval_microseconds",
      "Millrace.Batching.max_queue_bytes",
      "Millrace.Batching.check",
      "Millrace.supervision",
      "Millrace.Supervision.execution_limit_microseconds",
      "Millrace.lifecycle",
      "Millrace.Lifecycle.swap",
      "Millrace.Supervision.memory_limit_bytes",
      "Millrace.Supervision.readiness",
      "Millrace.replicas",
      "Millrace.Replicas.min",
      "Millrace.Replicas.max",
      "Millrace.execution",
      "Millrace.Execution.bfloat16",
      "Millrace.Execution.channels_last",
      "Millrace.Execution.wait",
      "Millrace.numerics",
      "Millrace.Numerics.flush_denormals",
      "Millrace.Numerics.deterministic",
      "Millrace.Numerics.non_finite",
      "Millrace.transform",
      "Millrace.Transform.image",
      "Millrace.Transform.Image.input",
      "Millrace.Transform.Image.fit",
      "Millrace.Transform.Image.interpolation",
      "Millrace.Transform.Image.color_order",
      "Millrace.Transform.Image.formats",
      "Millrace.Transform.Image.scale",
      "Millrace.Transform.Image.mean",
      "Millrace.Transform.Image.std",
      "Millrace.Transform.Image.fill",
      "Millrace.Transform.Image.shorter_side",
      "Millrace.Transform.Image.most_pixels",
      "Millrace.Transform.Image.full_decoding",
      "ModelParameter.string_value",
      "ModelInput.name",
      "ModelInput.data_type",
      "ModelInput.dims",
      "ModelInput.format",
      "ModelOutput.name",
      "ModelOutput.data_type",
      "ModelOutput.dims",
      "ModelOutput.label_filename",
      "ModelVersionPolicy.latest",
      "ModelVersionPolicy.all",
      "ModelVersionPolicy.specific",
      "ModelVersionPolicy.Latest.num_versions",
      "ModelVersionPolicy.Specific.versions",
      "ModelInstanceGroup.name",
      "ModelInstanceGroup.kind",
      "ModelInstanceGroup.count",
      "ModelInstanceGroup.gpus",
      "ModelDynamicBatching.preferred_batch_size",
      "ModelDynamicBatching.max_queue_delay_microseconds",
      "ModelDynamicBatching.preserve_ordering",
      "ModelDynamicBatching.priority_levels",
      "ModelDynamicBatching.default_priority_level",
      "ModelDynamicBatching.default_queue_policy",
      "ModelDynamicBatching.priority_queue_policy",
      "ModelDynamicBatching.PriorityQueuePolicyEntry.key",
      "ModelDynamicBatching.PriorityQueuePolicyEntry.value",
      "ModelQueuePolicy.timeout_action",
      "ModelQueuePolicy.default_timeout_microseconds",
      "ModelQueuePolicy.allow_timeout_override",
      "ModelQueuePolicy.max_queue_size",
      "ModelWarmup.name",
      "ModelWarmup.batch_size",
      "ModelWarmup.count",
      "ModelWarmup.inputs",
      "ModelWarmup.InputsEntry.key",
      "ModelWarmup.InputsEntry.value",
      "ModelWarmup.Input.data_type",
      "ModelWarmup.Input.dims",
      "ModelWarmup.Input.zero_data",
      "ModelWarmup.Input.random_data",
      "ModelWarmup.Input.input_data_file",
  };
  return names->contains(field);
}

// The fields that a later version is to act on.
bool ComesLater(const std::string& field) {
  static const Names* const names = new Names{
      "ModelConfig.sequence_batching",
      "ModelTransactionPolicy.decoupled",
      "ModelResponseCache.enable",
      "ModelInput.optional",
      "ModelTensorReshape.shape",
      "ModelInstanceGroup.host_policy",
      "ModelOptimizationPolicy.Cuda.graphs",
      "ModelOptimizationPolicy.Cuda.graph_spec",
      "ModelOptimizationPolicy.PinnedMemoryBuffer.enable",
  };
  return names->contains(field);
}

// "ModelInput.dims" for inference.ModelInput.dims.
std::string TableName(const Field* field) {
  return std::string(absl::StripPrefix(absl::string_view(field->full_name()), "inference."));
}

absl::Status Refuse(const ConfigNode& node, const Field* field) {
  return node.Error(field, ComesLater(TableName(field))
                               ? "not supported yet; remove it"
                               : "not supported by this server; remove it");
}

// Whether setting the field means something even when the message in it is empty.
bool PresenceMatters(const Field* field) {
  return field->is_repeated() || field->real_containing_oneof() != nullptr;
}

absl::Status CheckUtf8(const ConfigNode& node, const Field* field) {
  const pb::Reflection* reflection = node.message().GetReflection();
  const int size = field->is_repeated() ? reflection->FieldSize(node.message(), field) : 1;
  for (int i = 0; i < size; ++i) {
    const std::string text = field->is_repeated()
                                 ? reflection->GetRepeatedString(node.message(), field, i)
                                 : reflection->GetString(node.message(), field);
    if (!IsUtf8(text)) return node.Error(field, "the text is not valid UTF-8");
  }
  return absl::OkStatus();
}

absl::Status CheckKeysDiffer(const ConfigNode& node, const Field* field) {
  const pb::Message& message = node.message();
  Names keys;
  for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) {
    const pb::Message& entry = message.GetReflection()->GetRepeatedMessage(message, field, i);
    if (!keys.insert(MapKey(entry)).second) {
      return node.ErrorAt(field->name().c_str(), i, "the key is given twice; keep one");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckField(const ConfigNode& node, const Field* field) {
  const bool supported = IsSupported(TableName(field));
  if (field->cpp_type() != Field::CPPTYPE_MESSAGE) {
    if (!supported) return Refuse(node, field);
    return field->cpp_type() == Field::CPPTYPE_STRING ? CheckUtf8(node, field) : absl::OkStatus();
  }
  if (!supported && PresenceMatters(field)) return Refuse(node, field);
  if (!field->is_repeated()) return CheckSupported(node.Child(field));
  for (int i = 0; i < node.message().GetReflection()->FieldSize(node.message(), field); ++i) {
    MILLRACE_RETURN_IF_ERROR(CheckSupported(node.Child(field, i)));
  }
  return field->is_map() ? CheckKeysDiffer(node, field) : absl::OkStatus();
}

}  // namespace

absl::Status CheckSupported(const ConfigNode& node) {
  std::vector<const Field*> fields;
  node.message().GetReflection()->ListFields(node.message(), &fields);
  for (const Field* field : fields) MILLRACE_RETURN_IF_ERROR(CheckField(node, field));
  return absl::OkStatus();
}

}  // namespace millrace
