// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/descriptor_lookup.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "proto/reflection_v1.pb.h"

namespace millrace {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptorProto;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;
using ::testing::ElementsAre;

void AddFile(DescriptorPool* pool, const std::string& text) {
  FileDescriptorProto file;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &file));
  ASSERT_NE(pool->BuildFile(file), nullptr);
}

// base.proto declares base.Open with extensions; top.proto imports it twice over and extends it.
class DescriptorLookupTest : public ::testing::Test {
 protected:
  DescriptorLookupTest() {
    AddFile(&pool_,
            "name: 'base.proto' package: 'base' message_type { name: 'Open' "
            "extension_range { start: 100 end: 200 } }");
    AddFile(&pool_, "name: 'middle.proto' dependency: 'base.proto'");
    AddFile(&pool_,
            "name: 'top.proto' package: 'top' dependency: 'base.proto' dependency: 'middle.proto' "
            "message_type { name: 'Message' } "
            "extension { name: 'a' number: 100 label: LABEL_OPTIONAL type: TYPE_INT32 "
            "            extendee: '.base.Open' } "
            "extension { name: 'b' number: 150 label: LABEL_OPTIONAL type: TYPE_INT32 "
            "            extendee: '.base.Open' } "
            "service { name: 'Service' method { name: 'Call' input_type: '.top.Message' "
            "          output_type: '.top.Message' } }");
  }

  ServerReflectionResponse Ask(const std::string& text) {
    ServerReflectionRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request));
    ServerReflectionResponse response;
    AnswerReflection(DescriptorLookup(pool_), {"top.Service"}, request, &response);
    EXPECT_EQ(response.valid_host(), request.host());
    EXPECT_EQ(response.original_request().SerializeAsString(), request.SerializeAsString());
    return response;
  }

  std::vector<std::string> FilesFor(const std::string& text) {
    std::vector<std::string> names;
    const ServerReflectionResponse response = Ask(text);
    for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
      FileDescriptorProto file;
      EXPECT_TRUE(file.ParseFromString(bytes));
      names.push_back(file.name());
    }
    return names;
  }

  int ErrorFor(const std::string& text) { return Ask(text).error_response().error_code(); }

  DescriptorPool pool_;
};

TEST_F(DescriptorLookupTest, ListsTheServices) {
  const ServerReflectionResponse response = Ask("host: 'h' list_services: ''");
  ASSERT_EQ(response.list_services_response().service_size(), 1);
  EXPECT_EQ(response.list_services_response().service(0).name(), "top.Service");
}

TEST_F(DescriptorLookupTest, AFileComesWithItsImportsOnce) {
  EXPECT_THAT(FilesFor("file_by_filename: 'top.proto'"),
              ElementsAre("top.proto", "base.proto", "middle.proto"));
}

TEST_F(DescriptorLookupTest, FindsTheFileOfAServiceAMethodAndAMessage) {
  for (const char* symbol : {"top.Service", "top.Service.Call", "top.Message"}) {
    EXPECT_EQ(FilesFor(std::string("file_containing_symbol: '") + symbol + "'").front(),
              "top.proto")
        << symbol;
  }
}

TEST_F(DescriptorLookupTest, FindsExtensions) {
  EXPECT_EQ(FilesFor("file_containing_extension { containing_type: 'base.Open' "
                     "extension_number: 150 }")
                .front(),
            "top.proto");
  const ServerReflectionResponse response = Ask("all_extension_numbers_of_type: 'base.Open'");
  EXPECT_EQ(response.all_extension_numbers_response().base_type_name(), "base.Open");
  EXPECT_THAT(response.all_extension_numbers_response().extension_number(), ElementsAre(100, 150));
}

TEST_F(DescriptorLookupTest, WhatIsNotThereIsAnErrorResponse) {
  constexpr int kNotFound = 5;
  EXPECT_EQ(ErrorFor("file_by_filename: 'other.proto'"), kNotFound);
  EXPECT_EQ(ErrorFor("file_containing_symbol: 'top.Other'"), kNotFound);
  EXPECT_EQ(ErrorFor("file_containing_extension { containing_type: 'base.Open' "
                     "extension_number: 101 }"),
            kNotFound);
  EXPECT_EQ(ErrorFor("file_containing_extension { containing_type: 'base.None' }"), kNotFound);
  EXPECT_EQ(ErrorFor("all_extension_numbers_of_type: 'base.None'"), kNotFound);
  EXPECT_EQ(ErrorFor(""), 3);
}

}  // namespace
}  // namespace millrace
