// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "proto/grpc_service.grpc.pb.h"
#include "server/base/clock.h"
#include "server/metrics/server_metrics.h"
#include "server/repository/model_repository.h"
#include "server/rpc/call_gate.h"

namespace millrace {

// The generated service with its two hot methods raw: they take and give grpc::ByteBuffers.
using RawInferenceService = inference::GRPCInferenceService::WithRawMethod_ModelInfer<
    inference::GRPCInferenceService::WithRawMethod_ModelStreamInfer<
        inference::GRPCInferenceService::AsyncService>>;

struct StreamLimits {
  size_t max_streams = 4096;  // Open at once; more are answered RESOURCE_EXHAUSTED.
  int default_window = 32;    // Requests of a stream that are read and not yet answered.
  int max_window = 256;       // The most that `millrace-window` may ask for.
};

// What the calls of the hot methods use; all of it outlives them.
struct InferContext {
  RawInferenceService* service;
  ModelRepository* repository;
  ServerMetrics* metrics;
  Clock* clock;
  CallGate* gate;
  StreamLimits limits;
};

}  // namespace millrace
