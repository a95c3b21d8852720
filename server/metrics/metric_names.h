// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

namespace millrace {

enum class MetricType { kCounter, kGauge, kHistogram };

// One metric family: its name, what it means, and the names of its labels, in order (unused
// places are null). docs/metrics.md describes each; a test keeps the two in step.
struct Metric {
  const char* name;
  MetricType type;
  const char* help;
  std::array<const char*, 4> labels = {};
};

// Upper bounds of the duration histograms, in nanoseconds: 10 µs to 30 s.
inline constexpr std::array<int64_t, 20> kDurationBounds = {
    10'000,        25'000,        50'000,        100'000,        250'000,
    500'000,       1'000'000,     2'500'000,     5'000'000,      10'000'000,
    25'000'000,    50'000'000,    100'000'000,   250'000'000,    500'000'000,
    1'000'000'000, 2'500'000'000, 5'000'000'000, 10'000'000'000, 30'000'000'000};
// Upper bounds of the batch size histogram, in rows.
inline constexpr std::array<int64_t, 11> kRowBounds = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

// ---- Per model version --------------------------------------------------------------------------

inline constexpr Metric kRequestsTotal = {"millrace_requests_total",
                                          MetricType::kCounter,
                                          "Requests answered, by gRPC status code.",
                                          {"model", "version", "code"}};
inline constexpr Metric kRequestDuration = {
    "millrace_request_duration_seconds",
    MetricType::kHistogram,
    "From reading a request to having its answer; successful requests.",
    {"model", "version"}};
inline constexpr Metric kQueueWait = {"millrace_queue_wait_seconds",
                                      MetricType::kHistogram,
                                      "How long requests waited until a replica took their batch.",
                                      {"model", "version"}};
inline constexpr Metric kFill = {"millrace_fill_seconds",
                                 MetricType::kHistogram,
                                 "Copying the requests of a batch into its buffer, per batch.",
                                 {"model", "version"}};
inline constexpr Metric kExecute = {"millrace_execute_seconds",
                                    MetricType::kHistogram,
                                    "Running the model, per batch.",
                                    {"model", "version"}};
inline constexpr Metric kTransformWait = {
    "millrace_transform_wait_seconds",
    MetricType::kHistogram,
    "How long inputs waited until their transform began, per row; models with a transform.",
    {"model", "version"}};
inline constexpr Metric kTransformDecode = {"millrace_transform_decode_seconds",
                                            MetricType::kHistogram,
                                            "Decoding an input, per row; models with a transform.",
                                            {"model", "version"}};
inline constexpr Metric kTransformResize = {
    "millrace_transform_resize_seconds",
    MetricType::kHistogram,
    "Resizing and normalising an input into its batch, per row; models with a transform.",
    {"model", "version"}};
inline constexpr Metric kBatchRows = {"millrace_batch_rows",
                                      MetricType::kHistogram,
                                      "Rows of the batches that were run.",
                                      {"model", "version"}};
inline constexpr Metric kRejectionsTotal = {"millrace_rejections_total",
                                            MetricType::kCounter,
                                            "Requests that were refused before they ran.",
                                            {"model", "version", "reason"}};
inline constexpr Metric kNonFiniteTotal = {
    "millrace_non_finite_answers_total",
    MetricType::kCounter,
    "Answers flagged or refused since outputs held NaN or infinity.",
    {"model", "version"}};
inline constexpr Metric kReplicaRestartsTotal = {"millrace_replica_restarts_total",
                                                 MetricType::kCounter,
                                                 "Replicas that died and were replaced.",
                                                 {"model", "version"}};
inline constexpr Metric kReplicaBusyTotal = {
    "millrace_replica_busy_seconds_total",
    MetricType::kCounter,
    "Time the replicas spent on batches, summed over replicas; added when a batch is done.",
    {"model", "version"}};
inline constexpr Metric kSaturation = {
    "millrace_saturation_ratio",
    MetricType::kGauge,
    "Busy time of the replicas over their time, in the last 15 seconds: 0 is idle, 1 is full.",
    {"model", "version"}};
inline constexpr Metric kReadyReplicas = {"millrace_ready_replicas",
                                          MetricType::kGauge,
                                          "Replicas that can run batches.",
                                          {"model", "version"}};
inline constexpr Metric kBusyReplicas = {"millrace_busy_replicas",
                                         MetricType::kGauge,
                                         "Replicas that are running a batch.",
                                         {"model", "version"}};
inline constexpr Metric kQueueDepth = {"millrace_queue_depth_rows",
                                       MetricType::kGauge,
                                       "Rows that wait in the queue.",
                                       {"model", "version"}};
inline constexpr Metric kQueueLimit = {"millrace_queue_limit_rows",
                                       MetricType::kGauge,
                                       "Rows that the queue holds at most.",
                                       {"model", "version"}};
inline constexpr Metric kQueueOldestAge = {
    "millrace_queue_oldest_age_seconds",
    MetricType::kGauge,
    "How long the oldest request in the queue has waited; 0 when it is empty.",
    {"model", "version"}};
inline constexpr Metric kInFlight = {"millrace_in_flight_requests",
                                     MetricType::kGauge,
                                     "Requests admitted and not yet answered.",
                                     {"model", "version"}};

inline constexpr Metric kParked = {
    "millrace_parked_requests",
    MetricType::kGauge,
    "Requests of streams that wait for room in the queue; their streams are not read.",
    {"model", "version"}};
inline constexpr Metric kHeldBytes = {"millrace_held_bytes",
                                      MetricType::kGauge,
                                      "Payload bytes of requests admitted and not yet answered.",
                                      {"model", "version"}};
inline constexpr Metric kHeldBytesLimit = {"millrace_held_bytes_limit",
                                           MetricType::kGauge,
                                           "Payload bytes that the model's requests may hold.",
                                           {"model", "version"}};
inline constexpr Metric kPredictedWait = {
    "millrace_predicted_wait_seconds",
    MetricType::kGauge,
    "How long a request that came now would probably wait until a replica takes it.",
    {"model", "version"}};
inline constexpr Metric kCapacity = {"millrace_capacity_rows_per_second",
                                     MetricType::kGauge,
                                     "Rows that all replicas together can run in full batches.",
                                     {"model", "version"}};
inline constexpr Metric kOverloaded = {"millrace_overloaded",
                                       MetricType::kGauge,
                                       "1 while requests that waited too long are shed, else 0.",
                                       {"model", "version"}};
inline constexpr Metric kBatchSetup = {
    "millrace_batch_setup_seconds",
    MetricType::kGauge,
    "What a batch costs whatever its size, fitted while it is served.",
    {"model", "version", "shape", "kind"}};
inline constexpr Metric kBatchRowCost = {"millrace_batch_row_seconds",
                                         MetricType::kGauge,
                                         "What each row of a batch costs besides.",
                                         {"model", "version", "shape", "kind"}};
inline constexpr Metric kBatchDeviation = {
    "millrace_batch_deviation_seconds",
    MetricType::kGauge,
    "Standard deviation of the batches' times around setup and rows.",
    {"model", "version", "shape", "kind"}};

// ---- Per server ---------------------------------------------------------------------------------

inline constexpr Metric kReceivedTotal = {"millrace_received_requests_total",
                                          MetricType::kCounter,
                                          "Inference requests read from the wire.",
                                          {"rpc"}};
inline constexpr Metric kServerInFlight = {
    "millrace_server_in_flight_requests",
    MetricType::kGauge,
    "Inference requests read from the wire and neither answered nor abandoned by their client.",
    {"rpc"}};
inline constexpr Metric kUnknownModelTotal = {
    "millrace_unknown_model_requests_total", MetricType::kCounter,
    "Requests that named a model or version that is not served."};
inline constexpr Metric kStreams = {"millrace_streams", MetricType::kGauge, "Open streams."};
inline constexpr Metric kStreamsOpenedTotal = {"millrace_streams_opened_total",
                                               MetricType::kCounter, "Streams ever opened."};
inline constexpr Metric kStreamHeldBytes = {
    "millrace_stream_held_bytes", MetricType::kGauge,
    "Bytes that streams hold: of requests that are undecided and of answers not yet written."};
inline constexpr Metric kQueueBytes = {
    "millrace_queue_bytes", MetricType::kGauge,
    "Payload bytes of requests admitted and not yet answered, over all models."};
inline constexpr Metric kQueueBytesLimit = {
    "millrace_queue_bytes_limit", MetricType::kGauge,
    "Payload bytes that the requests of all models may hold."};
inline constexpr Metric kCpuBudget = {
    "millrace_cpu_budget_cores", MetricType::kGauge,
    "Cores this process may use: its affinity, cpuset and every cgroup quota."};
inline constexpr Metric kTransformWorkers = {
    "millrace_transform_workers", MetricType::kGauge,
    "Transform workers that may work at a time: the transform stage's share of the cores."};
inline constexpr Metric kTransformBusyTotal = {"millrace_transform_busy_seconds_total",
                                               MetricType::kCounter,
                                               "How long transform workers worked, all together."};
inline constexpr Metric kBatchCores = {
    "millrace_batch_cores", MetricType::kGauge,
    "Cores' worth of batches that may run at a time on CPU replicas."};
inline constexpr Metric kBuildInfo = {"millrace_build_info",
                                      MetricType::kGauge,
                                      "Always 1; the versions are in the labels.",
                                      {"version", "grpc", "libtorch"}};

// All of them, in the order in which they are exposed.
inline constexpr std::array kAllMetrics = {
    &kRequestsTotal,    &kRequestDuration,    &kQueueWait,        &kFill,
    &kExecute,          &kTransformWait,      &kTransformDecode,  &kTransformResize,
    &kBatchRows,        &kRejectionsTotal,    &kNonFiniteTotal,   &kReplicaRestartsTotal,
    &kReplicaBusyTotal, &kSaturation,         &kReadyReplicas,    &kBusyReplicas,
    &kQueueDepth,       &kQueueLimit,         &kQueueOldestAge,   &kInFlight,
    &kParked,           &kHeldBytes,          &kHeldBytesLimit,   &kPredictedWait,
    &kCapacity,         &kOverloaded,         &kBatchSetup,       &kBatchRowCost,
    &kBatchDeviation,   &kReceivedTotal,      &kServerInFlight,   &kUnknownModelTotal,
    &kStreams,          &kStreamsOpenedTotal, &kStreamHeldBytes,  &kQueueBytes,
    &kQueueBytesLimit,  &kCpuBudget,          &kTransformWorkers, &kTransformBusyTotal,
    &kBatchCores,       &kBuildInfo};

}  // namespace millrace
