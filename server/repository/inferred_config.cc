// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/inferred_config.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "server/repository/model_settings.h"
#include "server/repository/names.h"

namespace millrace {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

bool RowsDepend(const Inspection& inspection) {
  return absl::IsFailedPrecondition(inspection.batching);
}

int64_t RowsOf(const Inspection& inspection) {
  return RowsDepend(inspection) ? std::min<int64_t>(1, inspection.max_batch_size)
                                : inspection.max_batch_size;
}

// The specs under names that a config can hold.
std::vector<TensorSpec> Named(std::vector<TensorSpec> specs, const char* prefix) {
  for (size_t i = 0; i < specs.size(); ++i) {
    if (!IsName(specs[i].name)) specs[i].name = absl::StrCat(prefix, i);
  }
  return specs;
}
std::vector<TensorSpec> Inputs(const Inspection& inspection) {
  return Named(inspection.inputs, "INPUT__");
}
std::vector<TensorSpec> Outputs(const Inspection& inspection) {
  return Named(inspection.outputs, "OUTPUT__");
}

// A dimension for the rows in front, where there is one.
Shape Whole(const Inspection& inspection, const TensorSpec& spec) {
  Shape shape = spec.dims;
  if (inspection.max_batch_size > 0) shape.insert(shape.begin(), -1);
  return shape;
}

std::string What(const Inspection& inspection) {
  if (inspection.engine == EngineKind::kTorchScript) {
    return absl::StrCat("TorchScript, run by libtorch ", inspection.libtorch_version);
  }
  const std::string compiled = inspection.instruction_set.empty()
                                   ? ""
                                   : absl::StrCat(", compiled for ", inspection.instruction_set);
  return absl::StrCat("an AOTInductor package", compiled, ", run by libtorch ",
                      inspection.libtorch_version);
}

// What was found out about rows and batches, in a sentence.
std::string Batching(const Inspection& inspection) {
  if (inspection.max_batch_size == 0) {
    return "it has no batch dimension: one request is one run";
  }
  if (inspection.max_batch_size == 1) return "one row in each run";
  const std::string most = absl::StrCat("up to ", inspection.max_batch_size, " rows");
  if (inspection.batching.ok()) {
    return absl::StrCat(most, ", which get the same results in a batch as alone");
  }
  if (RowsDepend(inspection)) {
    return absl::StrCat("one row in each run, since ", inspection.batching.message());
  }
  return absl::StrCat(most,
                      "; whether they get the same results in a batch as alone is inconclusive: ",
                      inspection.batching.message());
}

std::string AsComment(const std::string& text) {
  return absl::StrCat("# ", absl::StrReplaceAll(text, {{"\n", "\n#   "}}), "\n");
}

std::string AsText(const char* field, const TensorSpec& spec) {
  return absl::StrCat(field, " [ { name: \"", absl::Utf8SafeCEscape(spec.name),
                      "\" data_type: TYPE_", WireName(spec.data_type), " dims: [ ",
                      absl::StrJoin(spec.dims, ", "), spec.dims.empty() ? "" : " ", "] } ]\n");
}

Value TextValue(absl::string_view text) {
  Value value;
  value.set_string_value(std::string(text));
  return value;
}

Value Tensors(const Inspection& inspection, const std::vector<TensorSpec>& specs) {
  Value values;
  for (const TensorSpec& spec : specs) {
    auto& fields =
        *values.mutable_list_value()->add_values()->mutable_struct_value()->mutable_fields();
    fields["name"] = TextValue(spec.name);
    fields["datatype"] = TextValue(WireName(spec.data_type));
    auto& shape = *fields["shape"].mutable_list_value();
    for (const int64_t size : Whole(inspection, spec)) {
      shape.add_values()->set_number_value(static_cast<double>(size));
    }
  }
  return values;
}

}  // namespace

std::string InferredConfig(const Inspection& inspection) {
  std::string text = AsComment(absl::StrCat("Found out by inspection: ", What(inspection), "."));
  if (!inspection.arguments.empty()) text += AsComment(inspection.arguments);
  text += AsComment(absl::StrCat("Batches: ", Batching(inspection), "."));
  for (const std::string& note : inspection.notes)
    text += AsComment(absl::StrCat("Note: ", note, "."));
  absl::StrAppend(&text, "max_batch_size: ", RowsOf(inspection), "\n");
  for (const TensorSpec& spec : Inputs(inspection)) text += AsText("input", spec);
  for (const TensorSpec& spec : Outputs(inspection)) text += AsText("output", spec);
  if (inspection.engine == EngineKind::kAotInductor) {
    text += "instance_group [ { kind: KIND_CPU } ]\n";  // That it was compiled for.
  }
  return text;
}

std::string DescribeInspection(const Inspection& inspection) {
  std::string text = absl::StrCat(What(inspection), "\n");
  if (!inspection.arguments.empty()) absl::StrAppend(&text, inspection.arguments, "\n");
  const auto add = [&](const char* kind, const std::vector<TensorSpec>& specs) {
    for (const TensorSpec& spec : specs) {
      absl::StrAppend(&text, kind, spec.name, " ", WireName(spec.data_type), " ",
                      ToString(Whole(inspection, spec)), "\n");
    }
  };
  add("input   ", Inputs(inspection));
  add("output  ", Outputs(inspection));
  absl::StrAppend(&text, "batches ", Batching(inspection), "\n");
  for (const std::string& note : inspection.notes) absl::StrAppend(&text, "note    ", note, "\n");
  return text;
}

std::string InspectionJson(const Inspection& inspection, const std::string& config) {
  Struct whole;
  auto& fields = *whole.mutable_fields();
  fields["platform"] = TextValue(PlatformName(inspection.engine));
  fields["libtorch_version"] = TextValue(inspection.libtorch_version);
  fields["instruction_set"] = TextValue(inspection.instruction_set);
  fields["arguments"] = TextValue(inspection.arguments);
  fields["inputs"] = Tensors(inspection, Inputs(inspection));
  fields["outputs"] = Tensors(inspection, Outputs(inspection));
  fields["max_batch_size"].set_number_value(static_cast<double>(RowsOf(inspection)));
  fields["batches"] = TextValue(Batching(inspection));
  fields["rows_are_independent"].set_bool_value(inspection.batching.ok());
  fields["file_tells_its_inputs"].set_bool_value(inspection.is_certain);
  for (const std::string& note : inspection.notes) {
    *fields["notes"].mutable_list_value()->add_values() = TextValue(note);
  }
  fields["config"] = TextValue(config);
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(whole, &json, options).ok()) return "{}\n";
  return json;
}

}  // namespace millrace
