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
  std::array<const char*, 5> labels = {};
};

// Upper bounds of the duration histograms, in nanoseconds: 10 µs to 30 s.
inline constexpr std::array<int64_t, 20> kDurationBounds = {
    10'000,        25'000,        50'000,        100'000,        250'000,
    500'000,       1'000'000,     2'500'000,     5'000'000,      10'000'000,
    25'000'000,    50'000'000,    100'000'000,   250'000'000,    500'000'000,
    1'000'000'000, 2'500'000'000, 5'000'000'000, 10'000'000'000, 30'000'000'000};
// Upper bounds of how old a stream's requests are, in nanoseconds: 10 ms to 10 s. They are few,
// since many streams have them.
inline constexpr std::array<int64_t, 8> kAgeBounds = {10'000'000,    33'000'000,    100'000'000,
                                                      250'000'000,   500'000'000,   1'000'000'000,
                                                      3'000'000'000, 10'000'000'000};
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
inline constexpr Metric kOutput = {"millrace_output_seconds",
                                   MetricType::kHistogram,
                                   "Copying the outputs of a batch out of its buffer, per batch.",
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
inline constexpr Metric kBatchLimit = {"millrace_batch_limit_rows",
                                       MetricType::kGauge,
                                       "Rows that a batch takes at most.",
                                       {"model", "version"}};
inline constexpr Metric kRejectionsTotal = {"millrace_rejections_total",
                                            MetricType::kCounter,
                                            "Requests that were refused before they ran.",
                                            {"model", "version", "reason"}};
inline constexpr Metric kArrivedRowsTotal = {
    "millrace_arrived_rows_total",
    MetricType::kCounter,
    "Rows of the requests that asked for a place in the queue, also of those that were refused.",
    {"model", "version"}};
inline constexpr Metric kDeadlineExceededTotal = {
    "millrace_deadline_exceeded_total",
    MetricType::kCounter,
    "Requests that missed their deadline, by how far they had come.",
    {"model", "version", "stage"}};
inline constexpr Metric kCancelledTotal = {
    "millrace_cancelled_total",
    MetricType::kCounter,
    "Requests that their client cancelled, by how far they had come.",
    {"model", "version", "stage"}};
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
inline constexpr Metric kDesiredReplicas = {
    "millrace_desired_replicas_ratio",
    MetricType::kGauge,
    "Demand over measured capacity, in the last 15 seconds: 1 is as much as there is, 2 is twice "
    "as much.",
    {"model", "version"}};
inline constexpr Metric kReadyReplicas = {"millrace_ready_replicas",
                                          MetricType::kGauge,
                                          "Replicas that can run batches.",
                                          {"model", "version"}};
inline constexpr Metric kBusyReplicas = {"millrace_busy_replicas",
                                         MetricType::kGauge,
                                         "Replicas that are running a batch.",
                                         {"model", "version"}};
inline constexpr Metric kReplicaState = {"millrace_replica_state",
                                         MetricType::kGauge,
                                         "1 for the state that a replica is in, 0 for the others.",
                                         {"model", "version", "replica", "device", "state"}};
inline constexpr Metric kModelLoad = {"millrace_model_load_duration_seconds",
                                      MetricType::kGauge,
                                      "How long the model took to load, until its replicas served.",
                                      {"model", "version"}};
inline constexpr Metric kWorkerCpuTotal = {
    "millrace_worker_cpu_seconds_total",
    MetricType::kCounter,
    "CPU time of the model's worker processes, also of those that have ended.",
    {"model", "version"}};
inline constexpr Metric kWorkerMemory = {
    "millrace_worker_memory_bytes",
    MetricType::kGauge,
    "Memory of the model's worker processes, what they share counted once.",
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
inline constexpr Metric kConnections = {"millrace_connections", MetricType::kGauge,
                                        "Open connections, of clients of the inference service."};
inline constexpr Metric kRefusedConnectionsTotal = {
    "millrace_refused_connections_total",
    MetricType::kCounter,
    "Connections that were closed at once, by reason.",
    {"reason"}};
inline constexpr Metric kGuardClosedTotal = {
    "millrace_guard_closed_connections_total",
    MetricType::kCounter,
    "Connections that the guard has closed for what their client sent, by reason.",
    {"reason"}};
inline constexpr Metric kDeniedCallsTotal = {
    "millrace_denied_calls_total",
    MetricType::kCounter,
    "Calls that were denied for what their caller is or isn't, by reason.",
    {"reason"}};
inline constexpr Metric kStreamMessagesTotal = {
    "millrace_stream_messages_total",
    MetricType::kCounter,
    "Messages of streams: requests read, answers written.",
    {"direction"}};
inline constexpr Metric kReorderBuffer = {"millrace_reorder_buffer_items", MetricType::kGauge,
                                          "Answers of streams that wait for those before them."};
inline constexpr Metric kHeadOfLineWait = {
    "millrace_head_of_line_wait_seconds", MetricType::kHistogram,
    "How long answers of streams waited for those before them."};
inline constexpr Metric kStreamAnswersTotal = {"millrace_stream_answers_total",
                                               MetricType::kCounter,
                                               "Answers to the streams of one name.",
                                               {"stream"}};
inline constexpr Metric kStreamDropsTotal = {
    "millrace_stream_drops_total",
    MetricType::kCounter,
    "Requests of the streams of one name that were given up before they ran.",
    {"stream"}};
inline constexpr Metric kStreamAge = {
    "millrace_stream_age_seconds",
    MetricType::kHistogram,
    "How old the requests of the streams of one name were when their outputs were sent.",
    {"stream"}};
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
                                      "Always 1; what was built, and with what, is in the labels.",
                                      {"version", "grpc", "libtorch", "commit"}};

inline constexpr Metric kTlsExpiry = {
    "millrace_tls_certificate_expiry_timestamp_seconds", MetricType::kGauge,
    "When the server's certificate expires, in seconds since 1970."};
inline constexpr Metric kTraceDroppedTotal = {"millrace_trace_dropped_total", MetricType::kCounter,
                                              "Sampled requests that are not in the trace file, "
                                              "since writing it was too slow or it was full."};
inline constexpr Metric kLogDroppedTotal = {
    "millrace_log_lines_dropped_total", MetricType::kCounter,
    "Lines that the log left out, since there were too many."};

// ---- Resources: this server's process, its cgroup with all workers, the GPUs
// -------------------------

inline constexpr Metric kCgroupCpuTotal = {
    "millrace_cgroup_cpu_seconds_total", MetricType::kCounter,
    "CPU time of the server's cgroup: the server, its workers and whoever else is in it."};
inline constexpr Metric kCgroupPeriodsTotal = {
    "millrace_cgroup_cpu_periods_total", MetricType::kCounter,
    "Periods of a CPU quota in which the cgroup wanted to run."};
inline constexpr Metric kCgroupThrottledPeriodsTotal = {
    "millrace_cgroup_cpu_throttled_periods_total", MetricType::kCounter,
    "Periods in which the cgroup was throttled."};
inline constexpr Metric kCgroupThrottledTotal = {"millrace_cgroup_cpu_throttled_seconds_total",
                                                 MetricType::kCounter,
                                                 "How long the cgroup was throttled."};
inline constexpr Metric kCgroupMemory = {
    "millrace_cgroup_memory_bytes", MetricType::kGauge,
    "Memory of the server's cgroup, with the file pages that it brought in."};
inline constexpr Metric kCgroupWorkingSet = {"millrace_cgroup_memory_working_set_bytes",
                                             MetricType::kGauge,
                                             "The same without file pages that are not in use."};
inline constexpr Metric kCgroupMemoryLimit = {
    "millrace_cgroup_memory_limit_bytes", MetricType::kGauge,
    "The least of the memory limits that apply to the cgroup; absent where there is none."};
inline constexpr Metric kCgroupOomKillsTotal = {
    "millrace_cgroup_oom_kills_total", MetricType::kCounter,
    "Processes of the cgroup that the kernel killed since memory was full."};
inline constexpr Metric kGpuUtilisation = {
    "millrace_gpu_utilization_ratio",
    MetricType::kGauge,
    "The part of the last moments in which the GPU computed.",
    {"gpu", "uuid"}};
inline constexpr Metric kGpuMemoryUsed = {"millrace_gpu_memory_used_bytes",
                                          MetricType::kGauge,
                                          "Memory of the GPU that is in use, by anybody.",
                                          {"gpu", "uuid"}};
inline constexpr Metric kGpuMemoryTotal = {"millrace_gpu_memory_total_bytes",
                                           MetricType::kGauge,
                                           "Memory that the GPU has.",
                                           {"gpu", "uuid"}};
inline constexpr Metric kGpuPower = {
    "millrace_gpu_power_watts", MetricType::kGauge, "What the GPU draws.", {"gpu", "uuid"}};

// Of the server's own process, by the names that all programs give them.
inline constexpr Metric kProcessCpuTotal = {"process_cpu_seconds_total", MetricType::kCounter,
                                            "CPU time of the server's process."};
inline constexpr Metric kProcessResident = {"process_resident_memory_bytes", MetricType::kGauge,
                                            "Resident memory of the server's process."};
inline constexpr Metric kProcessVirtual = {"process_virtual_memory_bytes", MetricType::kGauge,
                                           "Virtual memory of the server's process."};
inline constexpr Metric kProcessOpenFds = {"process_open_fds", MetricType::kGauge,
                                           "Open file descriptors of the server's process."};
inline constexpr Metric kProcessMaxFds = {"process_max_fds", MetricType::kGauge,
                                          "File descriptors that it may have open."};
inline constexpr Metric kProcessThreads = {"process_threads", MetricType::kGauge,
                                           "Threads of the server's process."};
inline constexpr Metric kProcessStartTime = {
    "process_start_time_seconds", MetricType::kGauge,
    "When the server's process was started, in seconds since 1970."};

// ---- Triton's names, shown with --triton-metrics ------------------------------------------------

inline constexpr Metric kTritonSuccess = {"nv_inference_request_success",
                                          MetricType::kCounter,
                                          "Requests that succeeded.",
                                          {"model", "version"}};
inline constexpr Metric kTritonFailure = {"nv_inference_request_failure",
                                          MetricType::kCounter,
                                          "Requests that failed.",
                                          {"model", "version", "reason"}};
inline constexpr Metric kTritonCount = {"nv_inference_count",
                                        MetricType::kCounter,
                                        "Rows of the requests that succeeded.",
                                        {"model", "version"}};
inline constexpr Metric kTritonExecCount = {"nv_inference_exec_count",
                                            MetricType::kCounter,
                                            "Batches that were run.",
                                            {"model", "version"}};
inline constexpr Metric kTritonRequestUs = {
    "nv_inference_request_duration_us",
    MetricType::kCounter,
    "From reading requests to having their answers, in microseconds, summed over requests.",
    {"model", "version"}};
inline constexpr Metric kTritonQueueUs = {
    "nv_inference_queue_duration_us",
    MetricType::kCounter,
    "Waiting for a replica, in microseconds, summed over requests.",
    {"model", "version"}};
inline constexpr Metric kTritonInputUs = {
    "nv_inference_compute_input_duration_us",
    MetricType::kCounter,
    "Copying inputs into batches, in microseconds, summed over requests.",
    {"model", "version"}};
inline constexpr Metric kTritonInferUs = {
    "nv_inference_compute_infer_duration_us",
    MetricType::kCounter,
    "Running the model, in microseconds, summed over requests.",
    {"model", "version"}};
inline constexpr Metric kTritonOutputUs = {
    "nv_inference_compute_output_duration_us",
    MetricType::kCounter,
    "Copying outputs out of batches, in microseconds, summed over requests.",
    {"model", "version"}};
inline constexpr Metric kTritonPending = {"nv_inference_pending_request_count",
                                          MetricType::kGauge,
                                          "Requests that wait for a replica.",
                                          {"model", "version"}};
inline constexpr Metric kTritonGpuUtilisation = {
    "nv_gpu_utilization",
    MetricType::kGauge,
    "The part of the last moments in which the GPU computed.",
    {"gpu_uuid"}};
inline constexpr Metric kTritonGpuMemoryTotal = {
    "nv_gpu_memory_total_bytes", MetricType::kGauge, "Memory that the GPU has.", {"gpu_uuid"}};
inline constexpr Metric kTritonGpuMemoryUsed = {"nv_gpu_memory_used_bytes",
                                                MetricType::kGauge,
                                                "Memory of the GPU that is in use.",
                                                {"gpu_uuid"}};
inline constexpr Metric kTritonGpuPower = {
    "nv_gpu_power_usage", MetricType::kGauge, "What the GPU draws, in watts.", {"gpu_uuid"}};
inline constexpr Metric kTritonCpuUtilisation = {
    "nv_cpu_utilization", MetricType::kGauge,
    "The part of the server's CPU budget that its cgroup has used since the last scrape."};
inline constexpr Metric kTritonMemoryTotal = {
    "nv_cpu_memory_total_bytes", MetricType::kGauge,
    "Memory that the server's cgroup may use; that of the machine where there is no limit."};
inline constexpr Metric kTritonMemoryUsed = {"nv_cpu_memory_used_bytes", MetricType::kGauge,
                                             "Memory that the server's cgroup uses."};

// All of Millrace's own, in the order in which they are exposed.
inline constexpr std::array kAllMetrics = {&kRequestsTotal,
                                           &kRequestDuration,
                                           &kQueueWait,
                                           &kFill,
                                           &kExecute,
                                           &kOutput,
                                           &kTransformWait,
                                           &kTransformDecode,
                                           &kTransformResize,
                                           &kBatchRows,
                                           &kBatchLimit,
                                           &kRejectionsTotal,
                                           &kArrivedRowsTotal,
                                           &kDeadlineExceededTotal,
                                           &kCancelledTotal,
                                           &kNonFiniteTotal,
                                           &kReplicaRestartsTotal,
                                           &kReplicaBusyTotal,
                                           &kSaturation,
                                           &kDesiredReplicas,
                                           &kReadyReplicas,
                                           &kBusyReplicas,
                                           &kReplicaState,
                                           &kModelLoad,
                                           &kWorkerCpuTotal,
                                           &kWorkerMemory,
                                           &kQueueDepth,
                                           &kQueueLimit,
                                           &kQueueOldestAge,
                                           &kInFlight,
                                           &kParked,
                                           &kHeldBytes,
                                           &kHeldBytesLimit,
                                           &kPredictedWait,
                                           &kCapacity,
                                           &kOverloaded,
                                           &kBatchSetup,
                                           &kBatchRowCost,
                                           &kBatchDeviation,
                                           &kReceivedTotal,
                                           &kServerInFlight,
                                           &kUnknownModelTotal,
                                           &kStreams,
                                           &kStreamsOpenedTotal,
                                           &kStreamHeldBytes,
                                           &kConnections,
                                           &kRefusedConnectionsTotal,
                                           &kGuardClosedTotal,
                                           &kDeniedCallsTotal,
                                           &kStreamMessagesTotal,
                                           &kReorderBuffer,
                                           &kHeadOfLineWait,
                                           &kStreamAnswersTotal,
                                           &kStreamDropsTotal,
                                           &kStreamAge,
                                           &kQueueBytes,
                                           &kQueueBytesLimit,
                                           &kCpuBudget,
                                           &kTransformWorkers,
                                           &kTransformBusyTotal,
                                           &kBatchCores,
                                           &kBuildInfo,
                                           &kTlsExpiry,
                                           &kTraceDroppedTotal,
                                           &kLogDroppedTotal,
                                           &kCgroupCpuTotal,
                                           &kCgroupPeriodsTotal,
                                           &kCgroupThrottledPeriodsTotal,
                                           &kCgroupThrottledTotal,
                                           &kCgroupMemory,
                                           &kCgroupWorkingSet,
                                           &kCgroupMemoryLimit,
                                           &kCgroupOomKillsTotal,
                                           &kGpuUtilisation,
                                           &kGpuMemoryUsed,
                                           &kGpuMemoryTotal,
                                           &kGpuPower,
                                           &kProcessCpuTotal,
                                           &kProcessResident,
                                           &kProcessVirtual,
                                           &kProcessOpenFds,
                                           &kProcessMaxFds,
                                           &kProcessThreads,
                                           &kProcessStartTime};

// The others.
inline constexpr std::array kTritonMetrics = {
    &kTritonSuccess,       &kTritonFailure,  &kTritonCount,          &kTritonExecCount,
    &kTritonRequestUs,     &kTritonQueueUs,  &kTritonInputUs,        &kTritonInferUs,
    &kTritonOutputUs,      &kTritonPending,  &kTritonGpuUtilisation, &kTritonGpuMemoryTotal,
    &kTritonGpuMemoryUsed, &kTritonGpuPower, &kTritonCpuUtilisation, &kTritonMemoryTotal,
    &kTritonMemoryUsed};

}  // namespace millrace
