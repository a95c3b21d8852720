// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/config_text.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "server/base/check.h"

namespace millrace {
namespace {

namespace pb = google::protobuf;

constexpr int kMostDepth = 16;  // Of messages in each other; the deepest that is known has 5.

// Keeps the first error. Lines and columns count from 0, as the tokenizer counts them.
class FirstError : public pb::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (!message_.empty()) return;
    line_ = line;
    column_ = column;
    message_ = message;
  }

  int line() const { return line_; }
  int column() const { return column_; }
  const std::string& message() const { return message_; }

 private:
  int line_ = 0;
  int column_ = 0;
  std::string message_;
};

// The identifier that stands last before a place in the text: the field whose value is wrong.
std::string FieldBefore(const std::string& text, int line, int column) {
  pb::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  FirstError ignored;
  pb::io::Tokenizer tokenizer(&stream, &ignored);
  tokenizer.set_comment_style(pb::io::Tokenizer::SH_COMMENT_STYLE);
  std::string field;
  while (tokenizer.Next()) {
    const pb::io::Tokenizer::Token& token = tokenizer.current();
    if (token.line > line || (token.line == line && token.column >= column)) break;
    if (token.type == pb::io::Tokenizer::TYPE_IDENTIFIER) field = token.text;
  }
  return field;
}

// Where a value was written, from 1; 0 where that isn't known. `index` counts only in a repeated
// field.
int WrittenLine(const ConfigNode::Tree& tree, const ConfigNode::Field* field, int index) {
  return tree.GetLocation(field, field->is_repeated() ? std::max(index, 0) : -1).line + 1;
}

}  // namespace

std::string MapKey(const pb::Message& entry) {
  const pb::FieldDescriptor* key = entry.GetDescriptor()->map_key();
  if (key->cpp_type() == pb::FieldDescriptor::CPPTYPE_STRING) {
    return entry.GetReflection()->GetString(entry, key);
  }
  return absl::StrCat(entry.GetReflection()->GetUInt64(entry, key));
}

const ConfigNode::Field* ConfigNode::FieldNamed(const char* name) const {
  const Field* field = message_.GetDescriptor()->FindFieldByName(name);
  MILLRACE_CHECK(field != nullptr, "A ModelConfig field's name is misspelt in the code.");
  return field;
}

ConfigNode ConfigNode::Child(const Field* field, int index) const {
  const pb::Reflection* reflection = message_.GetReflection();
  const pb::Message& message = field->is_repeated()
                                   ? reflection->GetRepeatedMessage(message_, field, index)
                                   : reflection->GetMessage(message_, field);
  ConfigNode child(message, tree_ == nullptr ? nullptr : tree_->GetTreeForNested(field, index),
                   file_);
  child.path_ = absl::StrCat(PathOf(field, index), ".");
  child.line_ = LineOf(field, index);
  return child;
}

bool ConfigNode::IsWritten(const char* field) const {
  return tree_ != nullptr && WrittenLine(*tree_, FieldNamed(field), 0) > 0;
}

absl::Status ConfigNode::Error(const Field* field, absl::string_view problem) const {
  return MakeError(LineOf(field, -1), PathOf(field, -1), problem);
}

absl::Status ConfigNode::ErrorAt(const char* field, int index, absl::string_view problem) const {
  const Field* descriptor = FieldNamed(field);
  return MakeError(LineOf(descriptor, index), PathOf(descriptor, index), problem);
}

absl::Status ConfigNode::MakeError(int line, absl::string_view path,
                                   absl::string_view problem) const {
  const std::string place = line > 0 ? absl::StrCat(":", line) : "";
  return absl::InvalidArgumentError(absl::StrCat(file_, place, ": field '", path, "': ", problem));
}

int ConfigNode::LineOf(const Field* field, int index) const {
  if (tree_ == nullptr) return line_;
  if (index >= 0) {
    // A list in brackets has one location, whatever its length; only if there are as many
    // locations as values do they belong to each other.
    const int last = message_.GetReflection()->FieldSize(message_, field) - 1;
    const bool one_each = WrittenLine(*tree_, field, last) > 0;
    if (one_each) return WrittenLine(*tree_, field, index);
    if (field->message_type() != nullptr) {
      ConfigNode value(message_.GetReflection()->GetRepeatedMessage(message_, field, index),
                       tree_->GetTreeForNested(field, index), file_);
      if (const int line = value.FirstLineWithin(); line > 0) return line;
    }
  }
  const int line = WrittenLine(*tree_, field, 0);
  return line > 0 ? line : line_;
}

int ConfigNode::FirstLineWithin() const {
  if (tree_ == nullptr) return 0;
  std::vector<const Field*> fields;
  message_.GetReflection()->ListFields(message_, &fields);
  int first = 0;
  for (const Field* field : fields) {
    const int line = WrittenLine(*tree_, field, 0);
    if (line > 0 && (first == 0 || line < first)) first = line;
  }
  return first;
}

std::string ConfigNode::PathOf(const Field* field, int index) const {
  if (field->containing_type()->options().map_entry()) {
    // A map's value needs no name of its own: inputs['x'], not inputs['x'].value.
    return path_.substr(0, path_.size() - 1);
  }
  std::string path = absl::StrCat(path_, absl::string_view(field->name()));
  if (index < 0) return path;
  if (!field->is_map()) return absl::StrCat(path, "[", index, "]");
  const pb::Message& entry = message_.GetReflection()->GetRepeatedMessage(message_, field, index);
  return absl::StrCat(path, "['", MapKey(entry), "']");
}

absl::StatusOr<std::unique_ptr<const ConfigText>> ConfigText::Parse(const std::string& text,
                                                                    std::string file) {
  std::unique_ptr<ConfigText> parsed(new ConfigText(std::move(file)));
  FirstError error;
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.WriteLocationsTo(&parsed->tree_);
  parser.SetRecursionLimit(kMostDepth);
  if (parser.ParseFromString(text, &parsed->config_)) return parsed;
  std::string problem = error.message();
  if (!absl::StrContains(problem, "field")) {
    const std::string field = FieldBefore(text, error.line(), error.column());
    if (!field.empty()) problem = absl::StrCat("field '", field, "': ", problem);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(parsed->file_, ":", error.line() + 1, ": ", problem));
}

}  // namespace millrace
