// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/method_table.h"

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/ext/channelz_service_plugin.h"
#include "gtest/gtest.h"
#include "proto/admin.pb.h"
#include "proto/grpc_service.pb.h"
#include "proto/health.pb.h"
#include "proto/reflection_v1.pb.h"
#include "proto/reflection_v1alpha.pb.h"

namespace millrace {
namespace {

// The methods of every service that is linked into a server.
std::set<std::string> DeclaredMethods() {
  const auto touch = grpc::channelz::experimental::InitChannelzService;  // Links its descriptors.
  EXPECT_NE(touch, nullptr);
  const google::protobuf::DescriptorPool& pool =
      *google::protobuf::DescriptorPool::generated_pool();
  std::set<std::string> methods;
  for (const google::protobuf::FileDescriptor* const file :
       {v1::DrainRequest::descriptor()->file(), inference::ModelInferRequest::descriptor()->file(),
        grpc::health::v1::HealthCheckRequest::descriptor()->file(),
        grpc::reflection::v1::ServerReflectionRequest::descriptor()->file(),
        grpc::reflection::v1alpha::ServerReflectionRequest::descriptor()->file(),
        pool.FindFileByName("src/proto/grpc/channelz/channelz.proto")}) {
    if (file == nullptr) {
      ADD_FAILURE() << "a file of channelz's descriptors is missing";
      continue;
    }
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor& service = *file->service(i);
      for (int j = 0; j < service.method_count(); ++j) {
        methods.insert(absl::StrCat("/", service.full_name(), "/", service.method(j)->name()));
      }
    }
  }
  return methods;
}

TEST(MethodTable, ClassifiesEveryDeclaredMethodAndNoOther) {
  std::set<std::string> classified;
  for (const ClassifiedMethod& method : AllMethods()) classified.emplace(method.path);
  EXPECT_EQ(DeclaredMethods(), classified);
}

}  // namespace
}  // namespace millrace
