// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"

namespace millrace {

// Answers to reflection's questions about a descriptor pool, whatever version of the protocol
// asked. Each returns NOT_FOUND for what the pool doesn't have. Thread-safe.
class DescriptorLookup {
 public:
  explicit DescriptorLookup(const google::protobuf::DescriptorPool& pool) : pool_(pool) {}

  // Appends serialised FileDescriptorProtos: the file and all that it imports, each once.
  absl::Status FileByName(const std::string& name, std::vector<std::string>* files) const;
  absl::Status FileContainingSymbol(const std::string& symbol,
                                    std::vector<std::string>* files) const;
  absl::Status FileContainingExtension(const std::string& type, int number,
                                       std::vector<std::string>* files) const;

  // Appends the numbers of all known extensions of message `type`.
  absl::Status ExtensionNumbers(const std::string& type, std::vector<int>* numbers) const;

 private:
  const google::protobuf::DescriptorPool& pool_;
};

// Fills `response` for `request`: the messages of grpc.reflection.v1 or of v1alpha.
template <typename Request, typename Response>
void AnswerReflection(const DescriptorLookup& lookup, const std::vector<std::string>& services,
                      const Request& request, Response* response) {
  response->set_valid_host(request.host());
  *response->mutable_original_request() = request;
  absl::Status status;
  std::vector<std::string> files;
  std::vector<int> numbers;
  switch (request.message_request_case()) {
    case Request::kListServices:
      for (const std::string& name : services) {
        response->mutable_list_services_response()->add_service()->set_name(name);
      }
      return;
    case Request::kFileByFilename:
      status = lookup.FileByName(request.file_by_filename(), &files);
      break;
    case Request::kFileContainingSymbol:
      status = lookup.FileContainingSymbol(request.file_containing_symbol(), &files);
      break;
    case Request::kFileContainingExtension:
      status = lookup.FileContainingExtension(
          request.file_containing_extension().containing_type(),
          request.file_containing_extension().extension_number(), &files);
      break;
    case Request::kAllExtensionNumbersOfType:
      status = lookup.ExtensionNumbers(request.all_extension_numbers_of_type(), &numbers);
      if (!status.ok()) break;
      response->mutable_all_extension_numbers_response()->set_base_type_name(
          request.all_extension_numbers_of_type());
      for (const int number : numbers) {
        response->mutable_all_extension_numbers_response()->add_extension_number(number);
      }
      return;
    default:
      status = absl::InvalidArgumentError("the request asks nothing; set one of message_request");
  }
  if (!status.ok()) {
    response->mutable_error_response()->set_error_code(static_cast<int>(status.code()));
    response->mutable_error_response()->set_error_message(std::string(status.message()));
    return;
  }
  for (std::string& file : files) {
    response->mutable_file_descriptor_response()->add_file_descriptor_proto(std::move(file));
  }
}

}  // namespace millrace
