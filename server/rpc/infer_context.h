// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/grpc_service.grpc.pb.h"
#include "server/base/clock.h"
#include "server/base/timer.h"
#include "server/inference/request.h"
#include "server/inference/response.h"
#include "server/metrics/server_metrics.h"
#include "server/repository/model_repository.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/connection_flows.h"
#include "server/rpc/load_reports.h"
#include "server/rpc/stream_limits.h"
#include "server/tracing/request_tracer.h"

namespace millrace {

// The generated service with its two hot methods raw: they take and give grpc::ByteBuffers.
using RawInferenceService = inference::GRPCInferenceService::WithRawMethod_ModelInfer<
    inference::GRPCInferenceService::WithRawMethod_ModelStreamInfer<
        inference::GRPCInferenceService::AsyncService>>;

// What the calls of the hot methods use; all of it outlives them.
struct InferContext {
  RawInferenceService* service;
  ModelRepository* repository;
  ServerMetrics* metrics;
  Clock* clock;
  Timer* timer;
  CallGate* gate;
  ConnectionFlows* connection_flows;
  RequestTracer* tracer;
  LoadReports* load_reports;  // Null: answers bring none.
  StreamLimits limits;
};

// The answer to a request that came at `arrival` and reaches no model: `status`, with what the
// request was called and its trace, which it takes. What a stream echoes is left in the request.
Response RefusalOf(Request& request, const absl::Status& status, absl::Time arrival,
                   const InferContext& context);

}  // namespace millrace
