// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/method_table.h"

#include "gtest/gtest.h"

namespace millrace {
namespace {

TEST(MethodTable, EveryMethodIsFoundByItsWholePathOnly) {
  for (const ClassifiedMethod& method : AllMethods()) {
    EXPECT_EQ(ClassOf(method.path), method.method_class) << method.path;
    EXPECT_FALSE(ClassOf(method.path.substr(1))) << method.path;
    EXPECT_FALSE(ClassOf(std::string(method.path) + "2")) << method.path;
    EXPECT_FALSE(ClassOf(method.path.substr(0, method.path.size() - 2))) << method.path;
  }
}

TEST(MethodTable, WhatIsNotInItHasNoClass) {
  for (const char* path : {"", "/", "/a", "/zz.Z/z", "/inference.GRPCInferenceService/modelInfer",
                           "/inference.GRPCInferenceService/"}) {
    EXPECT_FALSE(ClassOf(path)) << path;
  }
}

TEST(MethodTable, ChangingWhatIsServedIsForOperators) {
  EXPECT_EQ(ClassOf("/inference.GRPCInferenceService/RepositoryModelLoad"), MethodClass::kAdmin);
  EXPECT_EQ(ClassOf("/inference.GRPCInferenceService/RepositoryModelUnload"), MethodClass::kAdmin);
  EXPECT_EQ(ClassOf("/inference.GRPCInferenceService/LogSettings"), MethodClass::kAdmin);
  EXPECT_EQ(ClassOf("/millrace.v1.Admin/Drain"), MethodClass::kAdmin);
  EXPECT_EQ(ClassOf("/inference.GRPCInferenceService/ModelInfer"), MethodClass::kInfer);
  EXPECT_EQ(ClassOf("/inference.GRPCInferenceService/ModelConfig"), MethodClass::kRead);
  EXPECT_EQ(ClassOf("/grpc.health.v1.Health/Check"), MethodClass::kOpen);
}

}  // namespace
}  // namespace millrace
