// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/unique_fd.h"
#include "server/channel/control_socket.h"
#include "server/channel/mailbox.h"
#include "server/channel/model_memory.h"
#include "server/channel/worker_protocol.h"

namespace millrace {

// Bounds every wait of these tests; far beyond what anything takes.
constexpr absl::Duration kPatience = absl::Seconds(120);

// A folder's file of the test models, such as "good/identity/1/model.pt".
std::string TestModel(const std::string& path);

// The elements of a tensor as bytes, and back.
template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
template <typename T>
std::vector<T> Values(const std::string& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

// A tensor's row dims and bytes; of an output, with the batch dimension.
struct HostTensor {
  Shape dims;
  std::string bytes;
};

// The server's end of one replica.
class ReplicaEnd {
 public:
  ReplicaEnd(int pid, ControlSocket control, UniqueFd completion, MailboxWords* words);

  // The process's id.
  int pid() const { return pid_; }

  // What the replica said when it was ready, or not.
  absl::StatusOr<ReadyReply> WaitUntilReady() const;

  // Hands batch `buffer` over.
  void Post(uint32_t buffer);

  // Waits for what was posted. UNAVAILABLE when the replica has died instead.
  absl::Status WaitUntilCompleted();

  // Whether the process ends within kPatience, by its pidfd; and its control socket says so too.
  bool WaitUntilDead() const;

 private:
  const int pid_;
  const UniqueFd process_;
  ControlSocket control_;
  UniqueFd completion_;
  Mailbox mailbox_;
};

// Plays the server towards one worker program: starts it, loads a model and forks replicas. Ends
// the template when it goes; replicas end with the test, or by signals.
class WorkerHarness {
 public:
  // Starts the worker with shared memory of 4 mailboxes and 4 buffers of `buffer_bytes`. Makes this
  // process a child subreaper.
  explicit WorkerHarness(size_t buffer_bytes = 1 << 20);
  ~WorkerHarness();

  // The template's process id.
  int template_pid() const { return template_pid_; }

  // Has the template load `file`, and another one where that starts threads; remembers the
  // command's signature for batches. What a package is unpacked to is removed afterwards. Samples
  // take rows from `warmup_data`.
  absl::StatusOr<LoadedReply> Load(LoadCommand command, const std::string& file,
                                   const std::string& warmup_data = "");

  // Has the template fork a replica with `command` and waits until it is ready.
  absl::StatusOr<std::unique_ptr<ReplicaEnd>> Fork(ForkCommand command = {});

  // Writes a batch of `rows` rows into buffer `buffer`: `inputs` by the config's order.
  void Write(uint32_t buffer, int64_t rows, const std::vector<HostTensor>& inputs);

  // Reads what became of it.
  absl::StatusOr<std::vector<HostTensor>> Read(uint32_t buffer);

  // Write(), Post(), wait and Read() at once, in buffer 0.
  absl::StatusOr<std::vector<HostTensor>> Run(ReplicaEnd& replica, int64_t rows,
                                              const std::vector<HostTensor>& inputs);

  ModelMemory& memory() { return *memory_; }

 private:
  void StartTemplate();
  void EndTemplate();

  std::unique_ptr<ModelMemory> memory_;
  std::unique_ptr<ControlSocket> control_;
  std::unique_ptr<ModelSignature> signature_;
  int template_pid_ = -1;
};

// A command for a model of one or more inputs and outputs, warmed up with zeros at one row and at
// max_batch_size rows, as a server would that found no declared samples.
LoadCommand MakeLoad(EngineKind engine, int64_t max_batch_size, std::vector<TensorSpec> inputs,
                     std::vector<TensorSpec> outputs);

// A file under /proc/<pid>, with its last line break cut off; empty where there is none.
std::string ProcFile(int pid, const std::string& name);

// Threads of a process, by /proc/<pid>/status.
int ThreadsOf(int pid);

}  // namespace millrace
