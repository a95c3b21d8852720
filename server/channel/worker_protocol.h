// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/sandbox_mode.h"
#include "server/inference/engine_kind.h"
#include "server/inference/execution_mode.h"
#include "server/inference/inspection.h"
#include "server/inference/model_signature.h"
#include "server/inference/warmup.h"

namespace millrace {

// What server and worker say to each other over control sockets, as JSON, one struct per message.
// Template: Load → Loaded, then any number of Fork → Forked. Replica: Ready, once, on its own
// socket; its end-of-file tells the server that the replica died. Inspector: Inspect → any number
// of Inspected that tell how far it is, and one that tells the result.

// The argument that makes the worker program an inspector instead of a template.
inline constexpr char kInspectArgument[] = "--inspect";

// The worker finds its control socket at this file descriptor.
inline constexpr int kWorkerControlFd = 3;

// The user and group that workers become where the server runs as root: nobody's.
inline constexpr unsigned int kWorkerUid = 65534;

// Server → template, with two file descriptors: the model file and the model's memory; and where
// samples take data, a third: the warm-up data, see SealedBytes.
struct LoadCommand {
  ExecutionMode mode;  // On a GPU only its engine counts.
  std::string model_name;
  int64_t version = 0;
  int64_t max_batch_size = 0;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  bool optimize = true;        // Freeze and optimise a TorchScript module.
  bool inference_mode = true;  // Else no_grad.
  bool flush_denormals = false;
  bool deterministic = false;  // The same batch gets the same results; else it isn't served.
  int inter_op_threads = 1;
  std::vector<WarmupSample> warmup;
  // Run like the first sample, as many as there is a little time for.
  std::vector<int64_t> further_batch_sizes;
  bool on_gpu = false;      // The template then only loads; the replicas move, optimise and warm.
  bool background = false;  // The process runs at SCHED_IDLE, and is to leave that once loaded.
  bool check_batching = false;  // See LoadedReply::batching.
  // The template doesn't run the model, since one that did could not be forked from; the replicas
  // warm themselves.
  bool load_only = false;
  SandboxMode sandbox = SandboxMode::kOn;
  std::string folder = "";          // Empty, and where the package is unpacked; AOTInductor only.
  uint64_t memory_limit_bytes = 0;  // Of each process; 0: automatic.
  int server_pid = 0;
};

// Template → server.
struct LoadedReply {
  absl::Status status;  // Why the model can't serve.
  // Running the model started threads: the server is to start another template, with load_only.
  bool start_over = false;
  std::vector<std::string> notes;     // For the log: what was skipped or failed without harm.
  std::vector<std::string> warnings;  // For the log: what the sandbox lacks.
  // How long the last run of each of LoadCommand::warmup took; empty where none ran, 0 for one that
  // failed.
  std::vector<int64_t> warmup_ns;
  // FAILED_PRECONDITION where rows get other results in a batch than alone, and how they differ.
  absl::Status batching;
};

// Server → template, with three file descriptors: the replica's control socket, its completion
// event (an eventfd), and its standard output and error (a pipe).
struct ForkCommand {
  int mailbox = 0;        // The replica's index.
  std::vector<int> cpus;  // Where it runs; empty: where the template does.
  int threads = 1;        // Intra-op.
  int device_index = -1;  // The GPU; -1 is the CPU.
  // Runs the model once more before it serves, so that its first request finds its pages copied and
  // its threads started; else somebody waits for it.
  bool rehearses = false;
};

// Template → server.
struct ForkedReply {
  absl::Status status;
  int pid = 0;  // A child of the server.
};

// Replica → server.
struct ReadyReply {
  absl::Status status;  // Why the replica can't serve, e.g. out of device memory.
  std::vector<std::string> notes;
  std::vector<int64_t> warmup_ns;  // As in LoadedReply.
};

// Server → inspector, with one file descriptor: the model file.
struct InspectCommand {
  EngineKind engine = EngineKind::kTorchScript;
  // What to try the model with, where its file doesn't tell: dims without a batch dimension; -1 is
  // any size. Without a name an input goes by its place.
  std::vector<TensorSpec> inputs;
  int64_t max_batch_size = 0;  // The most rows to try; 0: automatic.
  SandboxMode sandbox = SandboxMode::kOn;
  std::string folder = "";          // As in LoadCommand.
  uint64_t memory_limit_bytes = 0;  // As in LoadCommand.
  int server_pid = 0;
};

// Inspector → server.
struct InspectedReply {
  std::string stage = "";             // What it does next; empty: this is the result.
  absl::Status status;                // Why there is none.
  std::vector<std::string> warnings;  // What the sandbox lacks.
  Inspection inspection;
};

// What `millrace-worker --describe` prints: one line of JSON.
struct WorkerDescription {
  struct Gpu {
    int index = 0;
    std::string name;
    uint64_t total_memory_bytes = 0;
    uint64_t free_memory_bytes = 0;
  };
  std::string libtorch_version;
  std::vector<Gpu> gpus;
};

std::string ToJson(const LoadCommand& command);
std::string ToJson(const LoadedReply& reply);
std::string ToJson(const ForkCommand& command);
std::string ToJson(const ForkedReply& reply);
std::string ToJson(const ReadyReply& reply);
std::string ToJson(const InspectCommand& command);
std::string ToJson(const InspectedReply& reply);
std::string ToJson(const WorkerDescription& description);

// A message parsed again; INTERNAL where the text isn't one. `Message` is one of the above.
template <typename Message>
absl::StatusOr<Message> FromJson(const std::string& text);

// The template's messages come as either command.
bool IsLoadCommand(const std::string& text);

}  // namespace millrace
