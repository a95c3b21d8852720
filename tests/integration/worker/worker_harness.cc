// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/worker/worker_harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/status.h"
#include "server/channel/sealed_bytes.h"
#include "server/replica/scratch_folder.h"

namespace millrace {
namespace {

// Waits for either descriptor; false when none became readable within kPatience.
bool WaitForEither(int a, int b) {
  pollfd entries[] = {{.fd = a, .events = POLLIN, .revents = 0},
                      {.fd = b, .events = POLLIN, .revents = 0}};
  return poll(entries, b < 0 ? 1 : 2, static_cast<int>(absl::ToInt64Milliseconds(kPatience))) > 0;
}

}  // namespace

std::string TestModel(const std::string& path) {
  const char* const folder = std::getenv("MILLRACE_TEST_MODELS");
  return absl::StrCat(folder ? folder : MILLRACE_TEST_MODELS, "/", path);
}

ReplicaEnd::ReplicaEnd(int pid, ControlSocket control, UniqueFd completion, MailboxWords* words)
    : pid_(pid),
      process_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))),
      control_(std::move(control)),
      completion_(std::move(completion)),
      mailbox_(words) {}

absl::StatusOr<ReadyReply> ReplicaEnd::WaitUntilReady() const {
  MILLRACE_ASSIGN_OR_RETURN(const ControlMessage message, control_.Receive(kPatience));
  return FromJson<ReadyReply>(message.text);
}

void ReplicaEnd::Post(uint32_t buffer) { mailbox_.Post(buffer); }

absl::Status ReplicaEnd::WaitUntilCompleted() {
  while (!mailbox_.TakeCompletion(/*spin=*/true)) {
    if (!mailbox_.PrepareToSleep()) continue;
    const bool woken = WaitForEither(completion_.get(), control_.fd());
    mailbox_.WokeUp();
    if (!woken) return absl::DeadlineExceededError("The batch did not complete.");
    if (mailbox_.TakeCompletion(/*spin=*/false)) break;
    pollfd dead = {.fd = control_.fd(), .events = POLLIN, .revents = 0};
    if (poll(&dead, 1, 0) > 0) return absl::UnavailableError("The replica has died.");
  }
  return absl::OkStatus();
}

bool ReplicaEnd::WaitUntilDead() const {
  return WaitForEither(process_.get(), -1) && absl::IsUnavailable(control_.Receive().status());
}

WorkerHarness::WorkerHarness(size_t buffer_bytes) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  memory_ = *ModelMemory::Create(
      {.mailboxes = 4, .buffers = 4, .buffer_bytes = kBatchHeaderBytes + buffer_bytes});
  StartTemplate();
}

WorkerHarness::~WorkerHarness() { EndTemplate(); }

void WorkerHarness::StartTemplate() {
  auto [ours, theirs] = *ControlSocket::CreatePair();
  control_ = std::make_unique<ControlSocket>(std::move(ours));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.fd(), kWorkerControlFd);
  char name[] = "millrace-worker";
  char* const arguments[] = {name, nullptr};
  const int error =
      posix_spawn(&template_pid_, MILLRACE_WORKER_PROGRAM, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  MILLRACE_CHECK(error == 0, "The worker program must have been built.");
}

void WorkerHarness::EndTemplate() {
  control_.reset();
  waitpid(template_pid_, nullptr, 0);
}

absl::StatusOr<LoadedReply> WorkerHarness::Load(LoadCommand command, const std::string& file,
                                                const std::string& warmup_data) {
  command.server_pid = getpid();
  std::unique_ptr<ScratchFolder> folder;
  if (command.mode.engine == EngineKind::kAotInductor) {
    MILLRACE_ASSIGN_OR_RETURN(folder, ScratchFolder::Create(kWorkerUid));
    command.folder = folder->path();
  }
  signature_ = std::make_unique<ModelSignature>(
      command.model_name, command.version, command.max_batch_size, command.inputs, command.outputs);
  const UniqueFd model(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!model.valid()) return ErrnoStatus(errno, absl::StrCat("opening ", file));
  std::vector<int> fds = {model.get(), memory_->fd()};
  UniqueFd data;
  if (!warmup_data.empty()) {
    const auto* const bytes = reinterpret_cast<const std::byte*>(warmup_data.data());
    MILLRACE_ASSIGN_OR_RETURN(data,
                              SealedBytes::Copy(absl::MakeConstSpan(bytes, warmup_data.size())));
    fds.push_back(data.get());
  }
  MILLRACE_RETURN_IF_ERROR(control_->Send(ToJson(command), fds));
  MILLRACE_ASSIGN_OR_RETURN(const ControlMessage message, control_->Receive(kPatience));
  MILLRACE_ASSIGN_OR_RETURN(const LoadedReply reply, FromJson<LoadedReply>(message.text));
  if (!reply.start_over) return reply;
  EndTemplate();
  StartTemplate();
  command.load_only = true;
  return Load(std::move(command), file, warmup_data);
}

absl::StatusOr<std::unique_ptr<ReplicaEnd>> WorkerHarness::Fork(ForkCommand command) {
  auto [ours, theirs] = *ControlSocket::CreatePair();
  UniqueFd completion(eventfd(0, EFD_CLOEXEC));
  MailboxWords* const words = memory_->mailbox(static_cast<size_t>(command.mailbox));
  Mailbox(words).Reset();
  MILLRACE_RETURN_IF_ERROR(
      control_->Send(ToJson(command), {theirs.fd(), completion.get(), STDERR_FILENO}));
  ControlSocket(theirs.release());
  MILLRACE_ASSIGN_OR_RETURN(const ControlMessage message, control_->Receive(kPatience));
  MILLRACE_ASSIGN_OR_RETURN(const ForkedReply forked, FromJson<ForkedReply>(message.text));
  MILLRACE_RETURN_IF_ERROR(forked.status);
  auto replica =
      std::make_unique<ReplicaEnd>(forked.pid, std::move(ours), std::move(completion), words);
  MILLRACE_ASSIGN_OR_RETURN(const ReadyReply ready, replica->WaitUntilReady());
  MILLRACE_RETURN_IF_ERROR(ready.status);
  return replica;
}

void WorkerHarness::Write(uint32_t buffer, int64_t rows, const std::vector<HostTensor>& inputs) {
  RowShape shape;
  for (const HostTensor& input : inputs) {
    shape.dims.push_back(input.dims);
    shape.row_bytes.push_back(input.bytes.size() / static_cast<size_t>(rows));
  }
  SharedBatchBuffer& batch = memory_->buffer(buffer);
  MILLRACE_CHECK(batch.Open(shape, rows).value_or(0) == rows, "The batch must fit.");
  for (size_t i = 0; i < inputs.size(); ++i) {
    const absl::Span<std::byte> area = batch.InputRows(static_cast<int>(i), 0, rows);
    std::memcpy(area.data(), inputs[i].bytes.data(), area.size());
  }
  batch.Seal(rows);
  batch.WriteHeader(*signature_);
}

absl::StatusOr<std::vector<HostTensor>> WorkerHarness::Read(uint32_t buffer) {
  MILLRACE_ASSIGN_OR_RETURN(const auto views, memory_->buffer(buffer).ReadOutputs());
  std::vector<HostTensor> outputs;
  for (const OutputView& view : views) {
    outputs.push_back(
        {.dims = view.shape,
         .bytes = {reinterpret_cast<const char*>(view.data.data()), view.data.size()}});
  }
  return outputs;
}

absl::StatusOr<std::vector<HostTensor>> WorkerHarness::Run(ReplicaEnd& replica, int64_t rows,
                                                           const std::vector<HostTensor>& inputs) {
  Write(0, rows, inputs);
  replica.Post(0);
  MILLRACE_RETURN_IF_ERROR(replica.WaitUntilCompleted());
  return Read(0);
}

LoadCommand MakeLoad(EngineKind engine, int64_t max_batch_size, std::vector<TensorSpec> inputs,
                     std::vector<TensorSpec> outputs) {
  LoadCommand command;
  command.mode.engine = engine;
  command.model_name = std::string("model");
  command.version = 1;
  command.max_batch_size = max_batch_size;
  command.inputs = std::move(inputs);
  command.outputs = std::move(outputs);
  std::vector<WarmupInput> zeros;
  for (const TensorSpec& spec : command.inputs) {
    if (ElementCount(spec.dims)) zeros.push_back({.name = spec.name, .dims = spec.dims});
  }
  if (zeros.size() < command.inputs.size()) return command;  // A dimension may be any.
  command.warmup.push_back({.rows = 1, .inputs = zeros});
  if (max_batch_size > 1) command.warmup.push_back({.rows = max_batch_size, .inputs = zeros});
  return command;
}

std::string ProcFile(int pid, const std::string& name) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/", name));
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

int ThreadsOf(int pid) {
  const std::string status = ProcFile(pid, "status");
  const size_t at = status.find("\nThreads:");
  return at == std::string::npos ? 0 : std::atoi(status.c_str() + at + sizeof("\nThreads:") - 1);
}

}  // namespace millrace
