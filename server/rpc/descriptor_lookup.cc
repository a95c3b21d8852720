// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/descriptor_lookup.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.pb.h"

namespace millrace {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;

void AppendWithImports(const FileDescriptor& file, std::set<const FileDescriptor*>* seen,
                       std::vector<std::string>* files) {
  if (!seen->insert(&file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  files->push_back(proto.SerializeAsString());
  for (int i = 0; i < file.dependency_count(); ++i) {
    AppendWithImports(*file.dependency(i), seen, files);
  }
}

absl::Status AppendFile(const FileDescriptor* file, const char* what, const std::string& name,
                        std::vector<std::string>* files) {
  if (file == nullptr) return absl::NotFoundError(absl::StrCat(what, " not found: ", name));
  std::set<const FileDescriptor*> seen;
  AppendWithImports(*file, &seen, files);
  return absl::OkStatus();
}

}  // namespace

absl::Status DescriptorLookup::FileByName(const std::string& name,
                                          std::vector<std::string>* files) const {
  return AppendFile(pool_.FindFileByName(name), "file", name, files);
}

absl::Status DescriptorLookup::FileContainingSymbol(const std::string& symbol,
                                                    std::vector<std::string>* files) const {
  return AppendFile(pool_.FindFileContainingSymbol(symbol), "symbol", symbol, files);
}

absl::Status DescriptorLookup::FileContainingExtension(const std::string& type, int number,
                                                       std::vector<std::string>* files) const {
  const Descriptor* const message = pool_.FindMessageTypeByName(type);
  if (message == nullptr) return absl::NotFoundError(absl::StrCat("type not found: ", type));
  const FieldDescriptor* const field = pool_.FindExtensionByNumber(message, number);
  return AppendFile(field == nullptr ? nullptr : field->file(), "extension",
                    absl::StrCat(number, " of ", type), files);
}

absl::Status DescriptorLookup::ExtensionNumbers(const std::string& type,
                                                std::vector<int>* numbers) const {
  const Descriptor* const message = pool_.FindMessageTypeByName(type);
  if (message == nullptr) return absl::NotFoundError(absl::StrCat("type not found: ", type));
  std::vector<const FieldDescriptor*> fields;
  pool_.FindAllExtensions(message, &fields);
  for (const FieldDescriptor* const field : fields) numbers->push_back(field->number());
  return absl::OkStatus();
}

}  // namespace millrace
