// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/text_format.h"
#include "proto/model_config.pb.h"

namespace millrace {

// A message inside a config.pbtxt, and where its fields stand in the text, so that whoever finds a
// fault can say where. A view: the ConfigText that it came from outlives it.
class ConfigNode {
 public:
  using Field = google::protobuf::FieldDescriptor;
  using Tree = google::protobuf::TextFormat::ParseInfoTree;

  ConfigNode(const google::protobuf::Message& message, const Tree* tree, absl::string_view file)
      : message_(message), tree_(tree), file_(file) {}

  const google::protobuf::Message& message() const { return message_; }

  // The field with this name. REQUIRES: the message has one.
  const Field* FieldNamed(const char* name) const;

  // The message in `field`; `index` tells which one of a repeated field or map.
  ConfigNode Child(const Field* field, int index = -1) const;
  ConfigNode Child(const char* field, int index = -1) const {
    return Child(FieldNamed(field), index);
  }

  // Whether the field is written in the text, be it as `[]` or with its default.
  bool IsWritten(const char* field) const;

  // INVALID_ARGUMENT `models/x/config.pbtxt:12: field 'input[1].dims': <problem>`. The line is
  // that of the field, or of the message where the field isn't written; none for what the whole
  // file lacks.
  absl::Status Error(const Field* field, absl::string_view problem) const;
  absl::Status Error(const char* field, absl::string_view problem) const {
    return Error(FieldNamed(field), problem);
  }
  // The same for one value of a repeated field.
  absl::Status ErrorAt(const char* field, int index, absl::string_view problem) const;

 private:
  // From 1; 0 where it isn't known.
  int LineOf(const Field* field, int index) const;
  int FirstLineWithin() const;
  std::string PathOf(const Field* field, int index) const;
  absl::Status MakeError(int line, absl::string_view path, absl::string_view problem) const;

  const google::protobuf::Message& message_;
  const Tree* tree_;
  absl::string_view file_;
  std::string path_;  // Of this message, ending in a dot; empty for the whole config.
  int line_ = 0;
};

// The key of a map's entry as text. REQUIRES: keys are strings or of type uint64.
std::string MapKey(const google::protobuf::Message& entry);

// The text of a config.pbtxt, parsed. Immutable.
class ConfigText {
 public:
  // Parses protobuf text format. INVALID_ARGUMENT names `file`, the line and the field: for syntax
  // errors, unknown fields, values of a wrong type, fields given twice. Reads no file.
  static absl::StatusOr<std::unique_ptr<const ConfigText>> Parse(const std::string& text,
                                                                 std::string file);

  const inference::ModelConfig& config() const { return config_; }
  ConfigNode root() const { return ConfigNode(config_, &tree_, file_); }

 private:
  explicit ConfigText(std::string file) : file_(std::move(file)) {}

  const std::string file_;
  inference::ModelConfig config_;
  ConfigNode::Tree tree_;
};

}  // namespace millrace
