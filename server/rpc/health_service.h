// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <set>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/impl/service_type.h"
#include "proto/health.grpc.pb.h"
#include "server/base/mutex.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/unary_method.h"

namespace millrace {

// The standard health service, grpc.health.v1, on completion queues: no thread per Watch.
// Thread-safe. Outlives its calls: destroy it after the gate was closed.
//
// Invariants:
//  1. A Watch's first message is the status at its start, and whenever it falls behind the status
//     it is sent the newest; states that were overtaken before they could be sent are left out.
//  2. After Drain() nothing is SERVING any more but "liveness".
//  3. "liveness" is SERVING whatever else is not; "readiness" is another name for "". They are for
//     probes; a model of that name isn't told of.
class HealthService {
 public:
  // At most `max_watches` watches are open at once; more are answered RESOURCE_EXHAUSTED.
  explicit HealthService(CallGate& gate, size_t max_watches = 1000);

  HealthService(const HealthService&) = delete;
  HealthService& operator=(const HealthService&) = delete;

  // To be registered with the server's builder.
  grpc::Service* service() { return &service_; }

  // Waits for calls on `queue`. Call after the server was built.
  void Start(grpc::ServerCompletionQueue* queue);

  // Makes `name` known and says whether it takes requests; "" is the whole server. Watches are told
  // at once. Never blocks.
  void SetStatus(const std::string& name, bool serving) ABSL_LOCKS_EXCLUDED(mutex_);

  // Makes every name but "liveness" NOT_SERVING for good, and tells the watches. Never blocks.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

  // Drains, and ends every watch with UNAVAILABLE once it was told. Never blocks.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Serving = grpc::health::v1::HealthCheckResponse;
  class Watch;

  grpc::Status Check(const std::string& name, Serving* response) const ABSL_LOCKS_EXCLUDED(mutex_);
  Serving::ServingStatus StatusOf(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Runs `change` under the lock, then starts what each watch has to do now.
  template <typename Change>
  void ChangeAndTell(Change change) ABSL_LOCKS_EXCLUDED(mutex_);

  CallGate& gate_;
  const size_t max_watches_;
  grpc::health::v1::Health::AsyncService service_;
  UnaryMethod<grpc::health::v1::HealthCheckRequest, Serving> check_;
  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, bool> serving_ ABSL_GUARDED_BY(mutex_);
  std::set<Watch*> watches_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace
