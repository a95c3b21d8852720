// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "grpcpp/completion_queue.h"
#include "grpcpp/impl/service_type.h"
#include "proto/reflection_v1.grpc.pb.h"
#include "proto/reflection_v1alpha.grpc.pb.h"
#include "server/base/mutex.h"
#include "server/rpc/call_gate.h"

namespace millrace {

// The standard reflection service, grpc.reflection.v1 and v1alpha, on completion queues: no thread
// per stream. Answers from the descriptors that are linked into the program. Thread-safe. Outlives
// its calls: destroy it after the gate was closed.
class ReflectionService {
 public:
  // `services` are the full names of what list_services lists. At most `max_streams` streams are
  // open at once; more are answered RESOURCE_EXHAUSTED.
  ReflectionService(CallGate& gate, std::vector<std::string> services, size_t max_streams = 100);

  ReflectionService(const ReflectionService&) = delete;
  ReflectionService& operator=(const ReflectionService&) = delete;

  // To be registered with the server's builder, both.
  grpc::Service* v1() { return &v1_; }
  grpc::Service* v1alpha() { return &v1alpha_; }

  // Waits for calls on `queue`. Call after the server was built.
  void Start(grpc::ServerCompletionQueue* queue);

  // Ends every stream with UNAVAILABLE once its current question was answered. Never blocks.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Stream;
  template <typename Service, typename Request, typename Response>
  class TypedStream;

  CallGate& gate_;
  const std::vector<std::string> services_;
  const size_t max_streams_;
  grpc::reflection::v1::ServerReflection::AsyncService v1_;
  grpc::reflection::v1alpha::ServerReflection::AsyncService v1alpha_;
  Mutex mutex_;
  std::set<Stream*> streams_ ABSL_GUARDED_BY(mutex_);
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace
