// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/method_table.h"

#include <algorithm>

namespace millrace {
namespace {

using enum MethodClass;

constexpr ClassifiedMethod kMethods[] = {
    {"/grpc.channelz.v1.Channelz/GetChannel", kAdmin},
    {"/grpc.channelz.v1.Channelz/GetServer", kAdmin},
    {"/grpc.channelz.v1.Channelz/GetServerSockets", kAdmin},
    {"/grpc.channelz.v1.Channelz/GetServers", kAdmin},
    {"/grpc.channelz.v1.Channelz/GetSocket", kAdmin},
    {"/grpc.channelz.v1.Channelz/GetSubchannel", kAdmin},
    {"/grpc.channelz.v1.Channelz/GetTopChannels", kAdmin},
    {"/grpc.health.v1.Health/Check", kOpen},
    {"/grpc.health.v1.Health/Watch", kOpen},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", kRead},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kRead},
    {"/inference.GRPCInferenceService/CudaSharedMemoryRegister", kAdmin},
    {"/inference.GRPCInferenceService/CudaSharedMemoryStatus", kAdmin},
    {"/inference.GRPCInferenceService/CudaSharedMemoryUnregister", kAdmin},
    {"/inference.GRPCInferenceService/LogSettings", kAdmin},
    {"/inference.GRPCInferenceService/ModelConfig", kRead},
    {"/inference.GRPCInferenceService/ModelInfer", kInfer},
    {"/inference.GRPCInferenceService/ModelMetadata", kRead},
    {"/inference.GRPCInferenceService/ModelReady", kRead},
    {"/inference.GRPCInferenceService/ModelStatistics", kRead},
    {"/inference.GRPCInferenceService/ModelStreamInfer", kInfer},
    {"/inference.GRPCInferenceService/RepositoryIndex", kRead},
    {"/inference.GRPCInferenceService/RepositoryModelLoad", kAdmin},
    {"/inference.GRPCInferenceService/RepositoryModelUnload", kAdmin},
    {"/inference.GRPCInferenceService/ServerLive", kRead},
    {"/inference.GRPCInferenceService/ServerMetadata", kRead},
    {"/inference.GRPCInferenceService/ServerReady", kRead},
    {"/inference.GRPCInferenceService/SystemSharedMemoryRegister", kAdmin},
    {"/inference.GRPCInferenceService/SystemSharedMemoryStatus", kAdmin},
    {"/inference.GRPCInferenceService/SystemSharedMemoryUnregister", kAdmin},
    {"/inference.GRPCInferenceService/TraceSetting", kAdmin},
    {"/millrace.v1.Admin/Drain", kAdmin},
    {"/millrace.v1.Admin/ListReplicas", kAdmin},
    {"/millrace.v1.Admin/Resize", kAdmin},
    {"/millrace.v1.Admin/Restart", kAdmin},
};

constexpr bool kAscending = std::ranges::is_sorted(
    kMethods, [](const ClassifiedMethod& a, const ClassifiedMethod& b) { return a.path < b.path; });
static_assert(kAscending);

}  // namespace

absl::string_view NameOf(MethodClass method_class) {
  switch (method_class) {
    case kOpen:
      return "open";
    case kInfer:
      return "infer";
    case kRead:
      return "read";
    case kAdmin:
      return "admin";
  }
  return "";
}

absl::Span<const ClassifiedMethod> AllMethods() { return kMethods; }

std::optional<MethodClass> ClassOf(absl::string_view path) {
  const auto* const found =
      std::lower_bound(std::begin(kMethods), std::end(kMethods), path,
                       [](const ClassifiedMethod& method, absl::string_view sought) {
                         return method.path < sought;
                       });
  if (found == std::end(kMethods) || found->path != path) return std::nullopt;
  return found->method_class;
}

}  // namespace millrace
